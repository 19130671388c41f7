# Gibbon on the CPU: `docker build --tag gibbon .` installs the exact versions, with the CPU build of
# torch, and runs the paper's suite.  A build that ends well has shown that a fresh machine can do it;
# .ci/run builds it if docker is there.
#
#   docker run --rm gibbon list attacks
#   docker run --rm --volume "$PWD:/work" --workdir /work gibbon evaluate --model net.py:build ...
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /gibbon
COPY . .
# The stamp .venv/.ready says to make that everything is installed (Makefile).
RUN uv venv .venv \
    && uv pip install --no-cache --torch-backend=cpu --constraint constraints.txt --editable ".[dev]" \
    && touch .venv/.ready
RUN make bench ARGS="--device cpu"

ENV PATH="/gibbon/.venv/bin:$PATH"
ENTRYPOINT ["gibbon"]
CMD ["--help"]
