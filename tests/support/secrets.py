"""Made-up secrets and harmless texts, the same in every run.

`python -m tests.support.secrets` prints how many of them are found; see docs/secrets.md.

No secret stands here as a literal: each is put together at run time, so that scanners of this
repository find none. None was ever valid.
"""

# ruff: noqa: E501, RUF001 - a text in each line, in several languages

import base64
import random
import string
import sysconfig
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tribal_mcp.redaction.detector import Detector
from tribal_mcp.redaction.memory import redacted_text, secrets_in

ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"
WORDS = [
    "harbor",
    "lantern",
    "meadow",
    "copper",
    "violet",
    "thunder",
    "pepper",
    "window",
    "saddle",
    "marble",
    "falcon",
    "cinder",
    "walnut",
    "breeze",
    "canyon",
    "timber",
    "silver",
    "orchid",
    "pillow",
    "garnet",
    "bucket",
    "ribbon",
    "kettle",
    "planet",
]


@dataclass(frozen=True)
class MadeUp:
    """A secret, and a sentence with it as people write it.

    Attributes:
        kind: what it is.
        secret: what must not be shared.
        text: the sentence.
        field: the name of a metadata field that would hold it.
    """

    kind: str
    secret: str
    text: str
    field: str


def some(source: random.Random, characters: str, length: int) -> str:
    """Random characters."""
    return "".join(source.choices(characters, k=length))


def token(prefix: str, characters: str, length: int) -> Callable[[random.Random], str]:
    """A maker of tokens with a prefix."""
    return lambda source: prefix + some(source, characters, length)


def _password(source: random.Random) -> str:
    words = source.sample(WORDS, 2)
    return f"{words[0].title()}{source.choice('-_!&%')}{words[1]}{source.randrange(10, 9999)}"


def _pem(label: str) -> Callable[[random.Random], str]:
    def make(source: random.Random) -> str:
        body = "\n".join(some(source, ALNUM + "+/", 64) for _ in range(8))
        return f"-----{'BEGIN'} {label}-----\n{body}\n-----{'END'} {label}-----"

    return make


def _jwt(source: random.Random) -> str:
    parts = [
        '{"alg":"HS256","typ":"JWT"}',
        f'{{"sub":"{some(source, ALNUM, 12)}","iat":1760000000}}',
    ]
    head, body = (base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in parts)
    return f"{head}.{body}.{some(source, ALNUM + '-_', 43)}"


def _basic(source: random.Random) -> str:
    return base64.b64encode(f"deploy:{_password(source)}".encode()).decode()


Maker = tuple[Callable[[random.Random], str], str, str]
KINDS: dict[str, Maker] = {
    # how it is made, a sentence with it, and the name of a field that holds it
    "AWS access key": (token("AK" + "IA", BASE32, 16), "AWS access key {} for the backup bucket", "aws_access_key_id"),
    "AWS secret key": (
        lambda s: some(s, ALNUM + "/+", 40),
        "export AWS_SECRET_ACCESS_KEY={}",
        "aws_secret_access_key",
    ),
    "GitHub token": (token("gh" + "p_", ALNUM, 36), "CI clones with {}", "github_token"),
    "GitHub fine-grained token": (
        lambda s: f"github_{'pat'}_{some(s, UPPER, 22)}_{some(s, ALNUM, 59)}",
        "use {} for releases",
        "token",
    ),
    "GitLab token": (token("gl" + "pat-", ALNUM, 20), "GitLab API: {}", "gitlab_token"),
    "Slack bot token": (
        lambda s: f"xox{'b'}-{some(s, '123456789', 12)}-{some(s, '123456789', 13)}-{some(s, ALNUM, 24)}",
        "the bot posts with {}",
        "slack",
    ),
    "Slack webhook": (
        lambda s: f"https://hooks.slack.{'com'}/services/T{some(s, UPPER, 10)}/B{some(s, UPPER, 10)}/{some(s, ALNUM, 24)}",
        "alerts go to {}",
        "webhook",
    ),
    "Stripe key": (token("sk_" + "live_", ALNUM, 28), "billing uses {}", "stripe_key"),
    "OpenAI key": (
        lambda s: f"sk-{'proj'}-{some(s, ALNUM, 74)}T3Blbk{'FJ'}{some(s, ALNUM, 74)}",
        "OPENAI_API_KEY={}",
        "openai_api_key",
    ),
    "Anthropic key": (
        lambda s: f"sk-{'ant'}-api03-{some(s, ALNUM + '-_', 93)}AA",
        "Claude runs with {}",
        "anthropic",
    ),
    "Google API key": (token("AI" + "za", ALNUM, 35), "maps key {}", "google"),
    "npm token": (token("np" + "m_", ALNUM, 36), "publish with {}", "npm_token"),
    "PyPI token": (token("pypi-" + "AgEIcHlwaS5vcmc", ALNUM, 120), "twine password: {}", "pypi"),
    "Hugging Face token": (token("h" + "f_", string.ascii_letters, 34), "download with {}", "hf"),
    "SendGrid key": (
        lambda s: f"S{'G'}.{some(s, ALNUM, 22)}.{some(s, ALNUM, 43)}",
        "mail goes out with {}",
        "sendgrid",
    ),
    "DigitalOcean token": (token("dop_" + "v1_", HEX, 64), "doctl auth init -t {}", "do_token"),
    "Telegram bot token": (
        lambda s: f"{some(s, '123456789', 10)}:AA{some(s, ALNUM + '-_', 33)}",
        "telegram bot token {}",
        "telegram_bot_token",
    ),
    "Databricks token": (token("da" + "pi", HEX, 32), "the cluster takes {}", "databricks"),
    "Vault token": (token("hv" + "s.", ALNUM, 96), "vault login {}", "vault"),
    "Linear key": (token("lin_" + "api_", ALNUM, 40), "sync issues with {}", "linear"),
    "age key": (
        lambda s: f"AGE-SECRET-{'KEY'}-1{some(s, 'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L', 58)}",
        "the backups are encrypted for {}",
        "age",
    ),
    "RSA private key": (_pem("RSA PRIVATE KEY"), "the deploy key:\n{}", "key"),
    "OpenSSH private key": (_pem("OPENSSH PRIVATE KEY"), "my ssh key is\n{}\nkeep it safe", "ssh"),
    "JSON Web Token": (_jwt, "the session was {}", "session"),
    "database URL": (_password, "postgres://app:{}@db.internal:5432/prod", "password"),
    "HTTP basic auth": (_basic, "curl -H 'Authorization: Basic {}' https://intern.test", "secret"),
    "bearer token": (
        lambda s: some(s, ALNUM, 40),
        "send Authorization: Bearer {} with each call",
        "access_token",
    ),
    "password in prose": (_password, "the database password is {} since March", "password"),
    "password in German": (_password, "Das Passwort lautet {}", "passwort"),
    "password in a .env file": (_password, "POSTGRES_USER=app\nPOSTGRES_PASSWORD={}\n", "db_password"),
    "password in JSON": (_password, '{{"user": "app", "password": "{}"}}', "password"),
    "password in a command": (_password, "mysql -u root -p{} shop", "pwd"),
    "API key by its name": (lambda s: some(s, HEX, 32), "weather api_key: {}", "api_key"),
    "client secret": (lambda s: some(s, ALNUM, 32), 'client_secret = "{}"', "client_secret"),
    "one-time password secret": (
        lambda s: some(s, BASE32, 32),
        "otpauth://totp/Shop:me?secret={}&issuer=Shop",
        "secret",
    ),
    "seed phrase": (lambda s: " ".join(s.choices(WORDS, k=12)), "seed phrase: {}", "seed phrase"),
}  # fmt: skip


def made_up(each: int = 1, seed: int = 20) -> list[MadeUp]:
    """Secrets of every kind, `each` times."""
    source = random.Random(seed)  # noqa: S311 - made up, but the same in every run
    return [
        MadeUp(kind, secret := make(source), text.format(secret), name)
        for kind, (make, text, name) in KINDS.items()
        for _ in range(each)
    ]


MENTIONS = [
    "Login: admin / {}",
    "The WiFi password at the office is '{}'",
    "wifi pw: {}",
    "root password for the staging box = {}",
    "User changed his Netflix password to {}",
    "Credentials for grafana: admin/{}",
    "username: jdoe password: {}",
    "pass: {}",
    "SSH to 10.0.0.5 as root with password `{}`",
    "my password's {}",
    "password (old): {}",
    "password for DB: {}",
    "The password of the router is {}.",
    "passphrase: 'open sesame {}'",
    "set password {} for user x",
    "PGPASSWORD={} psql",
    "psql --password {}",
    "redis://:{}@cache:6379/0",
    "ftp://bob:{}@ftp.example.com",
    "Server=db;User Id=sa;Password={};",
    "pw={}",
    "<password>{}</password>",
    "'password' => '{}'",
    'define("DB_PASSWORD", "{}");',
    "La contraseña es {}",
    "Le mot de passe est {}",
    "пароль: {}",
    "密码：{}",
    "Das WLAN-Passwort ist {}",
    "Passwort für den Router: {}",
    "Kennwort: {}",
    "machine api.test login app password {}",
    "sshpass -p {} ssh root@host",
    "POSTGRES_PASSWORD: {}",
    "remember that the admin password for prod is {}",
    "use the password {} until Friday",
    "Please try {}, he said, it is his usual one",  # nothing tells what it is: a known limit
    "the safe opens with {}",
]
"""Ways in which people write a password."""

PLACES: dict[str, Callable[[MadeUp], dict[str, Any]]] = {
    "content": lambda one: {"content": one.text},
    "tags": lambda one: {
        "tags": ["infra", one.text.replace("\n", " ") if "{" in one.text else one.text]
    },
    "context": lambda one: {"context": one.text},
    "metadata": lambda one: {"metadata": {"service": {one.field: one.secret}}},
}
"""Where a secret stands in a memory: the fields of the memory."""


def texts_of(value: object) -> str:
    """All texts in a JSON value, as they are."""
    if isinstance(value, dict):
        return "\0".join(f"{key}\0{texts_of(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "\0".join(map(texts_of, value))
    return str(value)


PROSE = [
    "We decided to use PostgreSQL because the team knows it, and to revisit the choice in spring.",
    "Der Nutzer möchte kurze Antworten; das Passwort wird nie im Klartext gespeichert.",
    "L'utilisateur préfère le mode sombre et ne veut pas de notifications le dimanche.",
    "El usuario cambió la contraseña ayer y pidió un informe semanal.",
    "用户喜欢简短的回答，密码由管理员保管。",
    "ユーザーは毎週金曜日に進捗を報告してほしい。パスワードは金庫にある。",
    "Пользователь просит отвечать по-русски; пароль хранится в менеджере паролей.",
    "The password is required and must have at least twelve characters.",
    "The token expires after an hour, and the secret is rotated every week.",
    "Never commit an API key; read it from the environment with os.environ.",
    "Reset the password with `passwd`, then restart the service.",
    "The seed phrase is in the safe. The access token is stored in the keyring.",
    "password: required, min 12 characters. The password is case-sensitive.",
    "The password is 12 characters long. Password: 8-64 characters, no spaces.",
    "the password is stored in 1Password; see LastPass entry #12",
    "The API key is read from config_2.yaml. The secret is in us-east-1.",
    "access token is a JWT with 3 parts, and is valid for 3600s",
    "all tests pass: 1234 passed, pass: 12, fail: 2, boarding pass: gate B12",
    "passwd: /etc/passwd2, pwd: /home/user1/project, cd /tmp && pwd = /tmp/x1",
    "Meeting at 14:30 in room 3.12, budget 12,500 EUR, invoice 2026-0815.",
]
CODE = [
    "def login(user: str, password: str = '') -> Token:\n    return client.auth(user, password)",
    "const token = process.env.GITHUB_TOKEN ?? await getToken();",
    "password = getpass.getpass('Password: ')",
    "api_key = os.environ['OPENAI_API_KEY']",
    "PASSWORD=${DB_PASSWORD}\nTOKEN=$(cat /run/secrets/token)",
    "kubectl create secret generic db --from-literal=password=$PASS",
    "SELECT id, password_hash FROM users WHERE token IS NOT NULL;",
    '<input type="password" name="password" placeholder="Password">',
    "type Props = { token: string; secretName: string; apiKey?: string };",
    "max_tokens: 4096\ntokenizer: cl100k_base\ntoken_count: 128000",
    "password = user.password1 or request.form['password2']",
    "password: {{ vault_db_password1 }}",
    "password: process.env.DB_PASS1, pass = 10000",
    "secrets:\n  db_password:\n    external: true",
    "password: <your password>, api_key: YOUR_API_KEY_HERE, token: xxxxxxxxxxxxxxxxxxxx",
    "assert response.headers['Authorization'] == f'Bearer {token}'",
]


def harmless(count: int = 2_000, seed: int = 20) -> list[str]:
    """Texts without secrets that look a little like them."""
    source = random.Random(seed)  # noqa: S311 - as above

    def image() -> str:
        return base64.b64encode(source.randbytes(source.randrange(60, 600))).decode()

    def version() -> str:
        return ".".join(str(source.randrange(40)) for _ in range(3))

    def words(length: int) -> str:
        return " ".join(source.choices(WORDS, k=length))

    makers: list[Callable[[], str]] = [
        lambda: f"Fixed in commit {some(source, HEX, 40)} ({some(source, HEX, 7)})",
        lambda: f"sha256:{some(source, HEX, 64)}",
        lambda: f"md5 {some(source, HEX, 32)}  {source.choice(WORDS)}.tar.gz",
        lambda: f"session {uuid.UUID(bytes=source.randbytes(16))}",
        lambda: f"![diagram](data:image/png;base64,{image()})",
        lambda: f"{source.choice(WORDS)}=={version()}\n{source.choice(WORDS)}>={version()}",
        lambda: f"https://{source.choice(WORDS)}.test/{source.choice(WORDS)}?id={some(source, ALNUM, 11)}&v={version()}",
        lambda: f"https://github.com/{source.choice(WORDS)}/{source.choice(WORDS)}/blob/{some(source, HEX, 40)}/README.md#L{source.randrange(900)}",
        lambda: f"git+ssh://git@github.com/{source.choice(WORDS)}/{source.choice(WORDS)}.git",
        lambda: f"integrity sha512-{base64.b64encode(source.randbytes(64)).decode()}",
        lambda: f"arn:aws:s3:::{source.choice(WORDS)}-{source.randrange(10**11, 10**12)}/{some(source, ALNUM, 20)}",
        lambda: f"docker pull {source.choice(WORDS)}@sha256:{some(source, HEX, 64)}",
        lambda: f"Error 0x{some(source, HEX, 8)} at 0x{some(source, HEX, 16)} in lib{source.choice(WORDS)}.so.{source.randrange(9)}",
        lambda: f"Order {source.randrange(10**9, 10**12)} shipped on 2026-{source.randrange(1, 13):02}-{source.randrange(1, 29):02}T{source.randrange(24):02}:00:00Z",
        lambda: f"latitude {source.uniform(-90, 90):.7f}, longitude {source.uniform(-180, 180):.7f}",
        lambda: f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{some(source, ALNUM, 43)} me@laptop",
        lambda: f"-----BEGIN CERTIFICATE-----\n{image()}\n-----END CERTIFICATE-----",
        lambda: f"class {''.join(w.title() for w in source.choices(WORDS, k=4))}Factory: pass  # {words(6)}",
        lambda: f'{{"etag": "{some(source, HEX, 32)}", "_id": "{some(source, HEX, 24)}"}}',
        lambda: f"cache_key: {some(source, HEX, 32)}, primary_key=users_{source.randrange(10**6)}",
        lambda: f"2026-01-31T10:00:00Z INFO request_id={uuid.UUID(bytes=source.randbytes(16))} took {source.randrange(900)} ms",
        lambda: f"key fingerprint SHA256:{some(source, ALNUM + '+/', 43)} ({source.choice(WORDS)})",
        lambda: f'{{"next_page_token": "{some(source, ALNUM, 24)}", "total": {source.randrange(999)}}}',
        lambda: f"{words(14)}. {words(9)}?",
        lambda: f"{source.choice(PROSE)} {words(3)}",
        lambda: f"{source.choice(CODE)}\n# {words(4)}",
    ]  # fmt: skip
    return [makers[number % len(makers)]() for number in range(count)]


def main() -> None:
    """Print how many secrets are found, by where they stand, and how many harmless texts."""
    finder = Detector()
    for place, fields_of in PLACES.items():
        secrets = made_up(each=2)
        found = sum(
            secrets_in({"id": "x", **fields_of(one)}, finder) is not None for one in secrets
        )
        print(f"{place}: {found} of {len(secrets)} secrets found")  # noqa: T201
    source = random.Random(20)  # noqa: S311 - as above
    mentions = [(text, _password(source)) for text in MENTIONS for _ in range(3)]
    found = sum(one not in redacted_text(text.format(one), finder) for text, one in mentions)
    print(f"passwords as people write them: {found} of {len(mentions)} found")  # noqa: T201
    texts = harmless()
    wrong = [text for text in texts if secrets_in({"id": "x", "content": text}, finder)]
    print(f"harmless texts: {len(wrong)} of {len(texts)} taken for secrets")  # noqa: T201
    pieces, taken = 0, 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for start in range(0, len(lines), 15):
            pieces += 1
            taken += bool(finder.find("\n".join(lines[start : start + 15])))
    print(f"standard library: {taken} of {pieces} pieces taken for secrets")  # noqa: T201


if __name__ == "__main__":
    main()
