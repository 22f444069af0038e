# syntax=docker/dockerfile:1
# weir in an image that can stand where the Collector's stood: it takes a file mounted at /etc/weir/config.yaml or /etc/otelcol*/config.yaml, and
# without one listens on all interfaces and counts.
#
#   docker build -t weir .
#   docker buildx build --platform linux/amd64,linux/arm64 -t weir .      # the compiler runs as the building machine; nothing is emulated
#   docker run -p 127.0.0.1:4317:4317 -p 127.0.0.1:8889:8889 -v weir:/var/lib/weir --read-only --stop-timeout 45 weir
FROM --platform=$BUILDPLATFORM rust:1.95-slim-bookworm AS build
ARG TARGETARCH
WORKDIR /build
COPY deploy/image deploy/image
RUN deploy/image toolchain "$TARGETARCH"
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,id=weir-$TARGETARCH,target=/build/target \
    deploy/image build "$TARGETARCH" /image

# Nothing but weir, the C library and the certificate authorities: no shell, no package manager.
FROM scratch
COPY --from=build /image/root /
COPY --from=build --chown=65532:65532 /image/owned /var/lib/
USER 65532:65532
ENV WEIR_DEFAULT_CONFIG=/etc/weir/config.yaml:/etc/otelcol*/config.yaml WEIR_LISTEN=0.0.0.0 WEIR_DATA_DIR=/var/lib/weir
VOLUME /var/lib/weir
EXPOSE 4317 4318 8888 8889 13133
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/weir", "health"]
ENTRYPOINT ["/weir"]
