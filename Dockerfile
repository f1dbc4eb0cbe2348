# The lab as a one-shot container; docs/container.md says how it is run.
#   docker build -t fastsocket-lab .
ARG DEBIAN=debian:bookworm-slim

FROM ${DEBIAN} AS build
WORKDIR /lab
COPY setup/__init__.py setup/packages.py setup/
COPY workloads/*.py workloads/
RUN apt-get update && apt-get install -y --no-install-recommends python3 \
    && apt-get install -y --no-install-recommends $(python3 -m setup.packages building)
# Before the sources, so that a change there does not make the environment anew. What only the report's test in a browser
# needs stays behind, with pip and the libraries' own tests.
COPY requirements.txt requirements-peers.txt pyproject.toml README.md LICENSE ./
COPY setup/bootstrap.py setup/peers.py setup/wheel.py setup/
COPY workloads/peers/*.py workloads/peers/
COPY fastsocket/__init__.py fastsocket/build.py fastsocket/
RUN python3 -c "from setup import bootstrap; bootstrap.make_environment(); bootstrap.install_all_wheels()" \
    && .venv/bin/pip uninstall --yes --quiet playwright greenlet pip \
    && find .venv -type d -name tests -prune -exec rm -r {} +
COPY . .
RUN make -C fastsocket all build/cost_call build/cost_connect \
    && make -C workloads/generator && touch fastsocket/build/finished

FROM ${DEBIAN}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fastsocket Lab" \
      org.opencontainers.image.description="Does per-core TCP listening pay on this machine? nginx, HAProxy and Redis with and without Fastsocket" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /lab
COPY setup/__init__.py setup/packages.py setup/peers.py setup/
COPY workloads/*.py workloads/
COPY workloads/peers/*.py workloads/peers/
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 tini \
    && apt-get install -y --no-install-recommends $(python3 -m setup.packages measuring) $(python3 -m setup.peers) \
    && rm -rf /var/lib/apt/lists/* \
    && dpkg-query --show > debian-packages.txt
COPY --from=build /lab /lab
ENV PATH="/lab/.venv/bin:$PATH" FASTSOCKET_LAB_RESULTS=/results FASTSOCKET_LAB_REVISION="${REVISION}" \
    MPLCONFIGDIR=/var/cache/matplotlib
# Whoever runs it, the fonts are known already.
RUN mkdir --mode 1777 "$MPLCONFIGDIR" && python -c "import matplotlib.font_manager"
ENTRYPOINT ["tini", "--", "python", "lab.py"]
CMD ["--help"]
