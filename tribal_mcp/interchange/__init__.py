"""Other systems' memories: recognises their files, and reads them as entries."""
