# The tribal-mcp HTTP server. The image runs as its own user and keeps its files in /data.
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY tribal_mcp tribal_mcp
RUN pip install --no-cache-dir --constraint constraints.txt . \
    && useradd --create-home --uid 10001 tribal \
    && install --directory --owner tribal --mode 700 /data

USER tribal
ENV TRIBAL_DATA_DIR=/data
VOLUME /data
EXPOSE 18790

# The server is reachable from outside the container, so TRIBAL_HTTP_TOKEN must be set.
CMD ["tribal-mcp", "serve", "--host", "0.0.0.0", "--port", "18790"]
