"""How well texts fit a question. Knows no store: texts come in, scores go out."""
