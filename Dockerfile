# The proxy as a small image. glibc, since NVIDIA's driver library that is mounted into containers needs it; without a
# GPU, `CGO_ENABLED=0 go build` gives a static binary that runs in any image.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# -z lazy: go-nvml resolves the driver's functions on first use, and there may be no driver. Some base images and
# hardened toolchains link with -z now, which would end the program before main.
RUN CGO_ENABLED=1 go build -trimpath -ldflags "-s -w -extldflags=-Wl,-z,lazy" -o /out/mlflow-emissions-proxy .

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
# Not "proxy", which Debian has already. Its group is root's and may write the state, for platforms that give a container
# some other number and that group, as OpenShift does.
RUN useradd --uid 10001 --gid 0 --no-create-home --home-dir /var/lib/mlflow-emissions-proxy --shell /usr/sbin/nologin emissions \
    && install -d -o 10001 -g 0 -m 0770 /var/lib/mlflow-emissions-proxy
COPY --from=build /out/mlflow-emissions-proxy /usr/local/bin/
COPY LICENSE NOTICE /usr/share/doc/mlflow-emissions-proxy/
# A number, since Kubernetes' runAsNonRoot cannot tell whether a name is root's.
USER 10001
ENV EMISSIONS_LISTEN=0.0.0.0:5001 EMISSIONS_STATE_DIR=/var/lib/mlflow-emissions-proxy
EXPOSE 5001
# The admin listener stays on the container's own loopback, where this asks it; EMISSIONS_ADMIN_LISTEN moves both.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["mlflow-emissions-proxy", "healthcheck"]
ENTRYPOINT ["mlflow-emissions-proxy"]
CMD ["serve"]
