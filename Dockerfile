# syntax=docker/dockerfile:1
# A static binary on nothing: no shell, no package manager, no user but 65532.
#   docker build -t pushguard .
#   docker run --read-only -p 8080:8080 -v pushguard-data:/data -v ./pushguard.yaml:/etc/pushguard/pushguard.yaml:ro pushguard
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
# With a vendor directory (make dist) nothing is downloaded.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o /out/pushguard ./cmd/pushguard \
 && mkdir -p /out/data /out/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/

FROM scratch
COPY --from=build /out/etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 --chmod=0700 /out/data /data
COPY --from=build /out/pushguard /pushguard
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# A container's own health is whether it lives; whether it is ready is for whoever sends it traffic.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/pushguard", "status", "--json"]
ENTRYPOINT ["/pushguard"]
CMD ["serve", "--config", "/etc/pushguard/pushguard.yaml", "--log-format", "json"]
