"""Writes a store with LlamaIndex's Chroma vector store, and prints its nodes."""

import json
import sys

import chromadb
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.vector_stores.chroma import ChromaVectorStore

collection = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection("llama")
document = Document(text="whole", id_="doc-1")
first = TextNode(text="The first chunk.", id_="n-1", metadata={"file_name": "runbook.md"})
second = TextNode(text="The second chunk.", id_="n-2")
loose = TextNode(text="A node without a document.", id_="n-3")
for node in (first, second):
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document.id_)
first.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="n-2")
second.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id="n-1")
nodes = [first, second, loose]
for number, node in enumerate(nodes):
    node.embedding = [0.5, 0.25 * number, 1.0]
ChromaVectorStore(chroma_collection=collection).add(nodes)
links = {"n-1": ["n-2"], "n-2": ["n-1"], "n-3": []}
print(
    json.dumps(
        {
            "memories": [
                {"id": n.id_, "text": n.text, "vector": n.embedding, "related_to": links[n.id_]}
                for n in nodes
            ]
        }
    )
)
