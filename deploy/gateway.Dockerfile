# The gateway alone, for machines where Triton runs in NVIDIA's image: one static binary, no shell, no root.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -tags=nomsgpack -trimpath -buildvcs=false -ldflags='-s -w' -o /refersam ./cmd/refersam

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /refersam /refersam
ENV REFERSAM_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["/refersam"]
CMD ["serve"]
