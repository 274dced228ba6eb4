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
RUN useradd --system --create-home --uid 10001 proxy
COPY --from=build /out/mlflow-emissions-proxy /usr/local/bin/
COPY LICENSE NOTICE /usr/share/doc/mlflow-emissions-proxy/
USER proxy
ENV EMISSIONS_LISTEN=0.0.0.0:5001
EXPOSE 5001
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["mlflow-emissions-proxy", "healthcheck"]
ENTRYPOINT ["mlflow-emissions-proxy"]
CMD ["serve"]
