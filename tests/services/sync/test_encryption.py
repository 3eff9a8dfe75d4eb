"""Encrypted folders: only machines that the others encrypt to can change anything."""

import shutil
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.services.sync.machines import Machine, in_step, machines
from tribal_mcp.errors import UsageError
from tribal_mcp.files import age_passphrase, age_proofs
from tribal_mcp.files.age_keys import keys_in_words
from tribal_mcp.files.encryption import encrypted
from tribal_mcp.services.sync import encrypted_files

pytestmark = pytest.mark.anyio


def give_keys(group: list[Machine]) -> None:
    """Give each machine a key, and the public keys of all."""
    recipients = []
    for machine in group:
        key = pyrage.x25519.Identity.generate()
        machine.home.mkdir(exist_ok=True)
        identity = machine.home / "key"
        identity.write_text(f"{key}\n")
        machine.settings["age_identity"] = identity
        recipients.append(str(key.to_public()))
    for machine in group:
        machine.settings["age_recipients"] = ",".join(recipients)


async def encrypting(tmp_path: Path, count: int = 2) -> list[Machine]:
    """Machines with a memory each, which have synced."""
    group = machines(tmp_path, count)
    give_keys(group)
    for number, machine in enumerate(group):
        await machine.put(number)
        await machine.sync(encrypt=True)
    await in_step(*group)
    return group


async def stranger_of(machine: Machine) -> Machine:
    """Somebody who knows the public keys of the others, and has written a file for them."""
    other = Machine(machine.home.with_name("stranger"), machine.home.with_name("elsewhere"))
    give_keys([other])
    own = other.settings["age_recipients"]
    other.settings["age_recipients"] = f"{own},{machine.settings['age_recipients']}"
    await other.put(0, content="forged")
    await other.put(9, content="forged")
    await other.sync(encrypt=True)
    return other


def put_into(path: Path, folder: Path, name: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(path, folder / (name or path.name)))


async def test_a_file_of_somebody_who_only_has_the_public_keys_is_refused(tmp_path: Path) -> None:
    one, two = await encrypting(tmp_path)
    before = await two.texts()
    stranger = await stranger_of(one)
    replica = (await two.sync()).replica
    [path] = stranger.files
    forged = put_into(path, two.shared / path.parent.name)
    new = Machine(tmp_path / "new", one.shared, settings=dict(two.settings))
    for machine in (two, new):
        result = await machine.sync(encrypt=True)
        [problem] = result.problems
        shown = f"'{forged.parent.name}/{forged.name}' in the shared folder"
        assert problem.startswith(f"The file {shown} was not written by a machine that this one ")
        assert await machine.texts() == before
    forged.unlink()
    put_into(path, two.shared / replica)  # as if it were of this machine
    result = await two.sync()
    assert (len(result.problems), result.replica) == (1, replica)
    assert await two.texts() == before


@pytest.mark.parametrize("how", ["subfolder", "number"])
async def test_a_file_under_another_name_is_refused(how: str, tmp_path: Path) -> None:
    one, two = await encrypting(tmp_path)
    await one.put(0, content="edited")
    await one.sync()
    own = one.shared / (await one.sync()).replica
    path = max(own.iterdir())
    target = tmp_path / "shared" / "0123456789abcdef" if how == "subfolder" else own
    name = path.name if how == "subfolder" else f"00000009{path.name[8:]}"
    put_into(path, target, name)
    path.unlink()
    result = await two.sync()
    assert (result.changed, len(result.problems)) == (0, 1)
    assert "names another replica or number" in result.problems[0]


async def test_an_old_file_that_is_put_back_is_named_and_changes_nothing(tmp_path: Path) -> None:
    one, two = await encrypting(tmp_path)
    replica = (await one.sync()).replica
    [path] = (one.shared / replica).iterdir()
    old = path.read_bytes()
    await one.put(0, content="edited")
    await in_step(one, two)
    assert not path.exists()
    path.write_bytes(old)
    for machine in (two, one):
        result = await machine.sync()
        assert result.outdated == [f"{replica}/{path.name}"]
        assert (result.files_read, result.published, result.problems) == (0, 0, [])
    assert not path.exists()
    assert (await two.get(0)).content == "edited"


async def test_a_file_is_refused_if_only_its_name_says_that_it_is_encrypted(tmp_path: Path) -> None:
    one, _ = await encrypting(tmp_path)
    stranger = Machine(tmp_path / "stranger", tmp_path / "elsewhere")
    await stranger.put(0, content="forged")
    await stranger.sync()
    [path] = stranger.files
    put_into(path, one.shared / path.parent.name, f"{path.name}.age")
    result = await one.sync()
    assert (result.changed, len(result.problems)) == (0, 1)
    assert "is not encrypted" in result.problems[0]


async def test_a_removed_machine_can_write_nothing_more(tmp_path: Path) -> None:
    one, two, removed = await encrypting(tmp_path, 3)
    rest = ",".join(one.settings["age_recipients"].split(",")[:2])
    for machine in (one, two):
        machine.settings["age_recipients"] = rest
        assert (await machine.sync()).files_written == 1
    await in_step(one, two)
    await removed.put(5)
    await removed.sync()
    for machine in (one, two):
        result = await machine.sync()
        assert (result.added, len(result.problems)) == (0, 1)


async def test_the_files_of_a_removed_machine_without_a_key_are_no_problem(tmp_path: Path) -> None:
    one, two, _ = await encrypting(tmp_path, 3)
    rest = ",".join(one.settings["age_recipients"].split(",")[:2])
    for machine in (one, two):
        machine.settings["age_recipients"] = rest
    await one.sync(remove_machine="machine-2")
    for machine in (two, one, two):
        assert (await machine.sync()).problems == []


async def test_files_from_before_there_were_proofs_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, new = machines(tmp_path, 3)
    give_keys([one, two, new])
    with monkeypatch.context() as earlier:
        earlier.setattr(encrypted_files, "written", encrypted)
        earlier.setattr(encrypted_files, "names_of_keys", keys_in_words)
        earlier.setattr(encrypted_files, "_check_writer", lambda *_: None)
        for number, machine in enumerate((one, two)):
            await machine.put(number)
            await machine.sync(encrypt=True)
        await in_step(one, two)
    result = await new.sync(encrypt=True)
    assert (result.added, len(result.problems)) == (0, 2)
    assert "does not prove who wrote it" in result.problems[0]
    for machine in (one, two):
        result = await machine.sync()
        assert (result.files_written, result.problems) == (1, [])
    assert (await new.sync()).added == 2
    await in_step(one, two, new)


async def test_ssh_keys_prove_who_wrote_a_file_but_not_those_of_kind_rsa(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    give_keys([one, two])
    key = {}
    new: list[Any] = [Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)]
    for kind, private in zip(("ed25519", "rsa"), new, strict=True):
        text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (tmp_path / kind).write_bytes(text)
        key[kind] = (
            private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        )
    both = f"{one.settings['age_recipients'].split(',')[0]},{key['ed25519']}"
    one.settings["age_recipients"] = both
    two.settings = {"age_identity": tmp_path / "ed25519", "age_recipients": both}
    for number, machine in enumerate((one, two)):
        await machine.put(number)
        await machine.sync(encrypt=True)
    await in_step(one, two)
    assert len(await one.texts()) == 2
    for changed in ({"age_identity": tmp_path / "rsa"}, {"age_recipients": key["rsa"]}):
        two.settings |= changed
        with pytest.raises(UsageError, match=r"can prove .* Nothing was changed"):
            await two.sync()


async def test_a_passphrase_proves_who_wrote_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(age_passphrase, "_WORK", 10)
    one, two = machines(tmp_path)
    (tmp_path / "passphrase").write_text("a long one\n")
    for number, machine in enumerate((one, two)):
        machine.settings = {"age_passphrase_file": tmp_path / "passphrase"}
        await machine.put(number)
        await machine.sync(encrypt=True)
    await in_step(one, two)
    assert len(await one.texts()) == 2


async def test_a_machine_without_a_key_of_its_own_is_refused(tmp_path: Path) -> None:
    one, two = await encrypting(tmp_path)
    del two.settings["age_identity"]
    with pytest.raises(UsageError, match="Set TRIBAL_AGE_IDENTITY to the file with the key of"):
        await two.sync()
    assert one.files


async def test_a_problem_says_whose_settings_lack_the_key_of_a_new_machine(tmp_path: Path) -> None:
    one, _ = await encrypting(tmp_path)
    new = Machine(tmp_path / "new", one.shared)
    give_keys([new])
    result = await new.sync(encrypt=True)
    assert len(result.problems) == 2
    told = "add the public key of this one to TRIBAL_AGE_RECIPIENTS on the machine that wrote"
    assert all(told in problem for problem in result.problems)


async def test_nothing_is_published_in_plain_text_where_the_others_encrypt(tmp_path: Path) -> None:
    one, _ = await encrypting(tmp_path)
    new = Machine(tmp_path / "new", one.shared)
    await new.put(7)
    before = one.files
    for _ in range(3):
        with pytest.raises(UsageError, match="encrypt their files") as refused:
            await new.sync()
    assert refused.value.next_steps[0].arguments["encrypt"] is True
    assert one.files == before
    assert len(list(new.home.rglob("sync/*.db"))) == 1


async def test_a_machine_that_does_not_encrypt_yet_is_refused_once_another_one_does(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    give_keys([one, two])
    await one.put(1)
    await in_step(one, two)
    await one.put(2, content="secret")
    await one.sync(encrypt=True)
    await two.put(1, content="edited")
    with pytest.raises(UsageError, match="encrypt their files"):
        await two.sync()
    await two.sync(encrypt=True)
    assert {path.suffix for path in one.files} == {".age"}
    await in_step(one, two)
    assert await one.texts() == {"memory-1": "edited", "memory-2": "secret"}


def test_only_the_two_machines_can_make_a_proof(tmp_path: Path) -> None:
    group: list[Any] = machines(tmp_path, 3)
    give_keys(group)
    one, two, other = (machine.context().settings for machine in group)
    given = age_proofs.proofs(one, b"digest")
    assert len(given) == 3
    assert age_proofs.are_valid(two, b"digest", given)
    assert not age_proofs.are_valid(two, b"other digest", given)
    only = other.model_copy(update={"age_recipients": two.age_recipients.split(",")[2]})
    assert not age_proofs.are_valid(only, b"digest", given)
