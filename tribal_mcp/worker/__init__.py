"""The process that works on the store, and the pool of them that a server keeps."""
