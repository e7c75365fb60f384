# pollgate in a container: the binary, the system's C library, and nothing else to log into.
#
#   docker build -t pollgate .
#   docker run -p 8080:8080 -v "$PWD/pollgate.toml:/etc/pollgate/pollgate.toml:ro" pollgate
#
# Inside a container "127.0.0.1" is the container itself: a config for it says
# listen = ["0.0.0.0:8080"], names the site's container in upstream.servers, and, if the site
# publishes from another container, internal = ["0.0.0.0:7080"] with a publish.token.

FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY conf conf
COPY benches benches
# The manifest names some of them; they are not built.
COPY tests tests
RUN cargo build --release --locked --bin pollgate \
    && strip target/release/pollgate

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/pollgate /usr/bin/pollgate
COPY --from=build /build/conf/pollgate.toml /etc/pollgate/pollgate.toml
ENV POLLGATE_CONFIG=/etc/pollgate/pollgate.toml
EXPOSE 8080
# Asks the gate over its internal listener, whose address and token the config has.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/bin/pollgate", "status"]
# SIGTERM drains; give `docker stop` as long as drain.timeout: `docker stop -t 45`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/pollgate"]
CMD ["run"]
