# The gateway alone, for machines where Triton runs in NVIDIA's image: one static binary, no shell, no root.
FROM golang:1.26-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libjpeg62-turbo-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# Go's own resolver and user lookup, so that nothing of glibc is loaded at run time.
RUN CGO_ENABLED=1 go build -tags=nomsgpack,libjpeg,netgo,osusergo -trimpath -buildvcs=false -ldflags='-s -w -linkmode external -extldflags -static' -o /refersam ./cmd/refersam
# A volume mounted there gets this folder's owner.
RUN mkdir /data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /refersam /refersam
COPY --from=build --chown=nonroot:nonroot /data /data
ENV REFERSAM_LISTEN=0.0.0.0:8080 REFERSAM_DATA=/data
EXPOSE 8080
ENTRYPOINT ["/refersam"]
CMD ["serve"]
