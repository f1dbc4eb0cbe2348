# The lab as a one-shot container:
#   docker build -t fastsocket-lab .
#   docker run --rm --privileged -v "$PWD/results:/lab/results" fastsocket-lab sweep --quick
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
WORKDIR /lab
COPY . .
RUN python3 lab.py --yes sweep --dry-run >/dev/null && make -C fastsocket && rm -rf /var/lib/apt/lists/*
# The accelerator's own command: docker run --rm --entrypoint fastsocket fastsocket-lab check nginx
ENV PATH="/lab/.venv/bin:$PATH"
ENTRYPOINT ["python3", "lab.py"]
CMD ["--help"]
