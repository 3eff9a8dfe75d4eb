"""A store on a Chroma server or in Chroma Cloud."""
