package main

import (
	"fmt"
	"html"
	"strings"
)

const picturePath = "docs/images/parts.svg"

// part is a box of the picture: a room of the program, or something outside of it.
type part struct {
	x, y, w, h    int
	class         string // "room", "main" for rooms on the way of a request, "outside" or "frame"
	name, caption string
}

// The rooms stand in four columns.
const column, width, height = 160, 145, 52

func col(n int) int { return 190 + n*column }

var parts = []part{
	{350, 16, 305, 44, "outside", "clients", "curl, Go, Python, a browser"},
	{170, 92, 665, 500, "frame", "refersam, one Go binary", ""},
	{col(0), 124, 465, height, "main", "gateway", "HTTP: routes, bodies, forms of answers, pages"},
	{col(3), 124, width, height, "room", "api", "the contract"},

	{col(0), 204, width, height, "room", "access", "keys, rates, usage"},
	{col(1), 204, width, height, "room", "images", "stored pictures"},
	{col(2), 204, width, height, "main", "answer", "makes one answer"},
	{col(3), 204, width, height, "room", "jobs", "work for later"},

	{col(0), 284, width, height, "room", "store", "all SQL"},
	{col(1), 284, width, height, "room", "blobs", "stored objects"},
	{col(0), 364, 305, height, "room", "fetch", "pictures and webhooks by address"},
	{col(2), 284, 305, height, "main", "experiment", "draws the variant of a request, once"},
	{col(2), 364, 305, height, "main", "pipeline", "the Segmenter: prepare, run"},

	{col(0), 444, width, height, "main", "preprocess", "bytes to pixels"},
	{col(1), 444, width, height, "main", "tokenize", "phrases to ids"},
	{col(2), 444, width, height, "main", "schedule", "admission, batches"},
	{col(3), 444, width, height, "main", "postprocess", "logits to masks"},
	{col(0), 524, 465, height, "main", "triton", "servers, gRPC, shared memory, the model's contract"},
	{col(3), 524, width, height, "room", "telemetry", "metrics, traces"},

	{10, 284, 130, height, "outside", "database", "SQLite, PostgreSQL"},
	{10, 364, 130, height, "outside", "objects", "files, S3 bucket"},

	{870, 252, 170, 340, "frame", "NVIDIA Triton", ""},
	{885, 284, 140, 44, "outside", "text", "the phrase"},
	{885, 346, 140, 44, "outside", "image", "the picture"},
	{885, 408, 140, 44, "outside", "VLI", "both together"},
	{885, 470, 140, 44, "outside", "VLP", "where to look"},
	{885, 532, 140, 44, "outside", "decoder", "the mask's logits"},
}

// arrows are lines from point to point; those on the way of a request are strong.
var arrows = []struct {
	class, points string
}{
	{"strong", "502,60 502,122"},
	{"strong", "582,176 582,202"},
	{"strong", "582,256 582,282"},
	{"strong", "662,336 662,362"},
	{"strong", "582,416 582,442"},
	{"strong", "742,416 742,442"},
	{"strong", "530,416 530,430 422,430 422,442"},
	{"strong", "520,416 520,424 262,424 262,442"},
	{"strong", "582,496 582,522"},
	{"strong", "655,560 662,560 662,584 868,584"},
	{"", "262,176 262,202"},
	{"", "422,176 422,202"},
	{"", "650,176 650,190 742,190 742,202"},
	{"", "670,230 657,230"},
	{"", "510,230 497,230"},
	{"", "516,256 516,270 505,270 505,390 497,390"},
	{"", "262,256 262,282"},
	{"", "422,256 422,282"},
	{"", "190,310 142,310"},
	{"", "422,336 422,350 75,350 75,362"},
	{"strong", "955,328 955,344"},
	{"strong", "955,390 955,406"},
	{"strong", "955,452 955,468"},
	{"strong", "955,514 955,530"},
}

// style has colours for light and dark pages. The picture has a ground of its own,
// because a page may be dark when the reader's system is light.
const style = `
  text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; text-anchor: middle; fill: #57606a }
  .name { font-size: 15px; font-weight: 600; fill: #1f2328 }
  .title { font-weight: 600; text-anchor: start }
  .ground { fill: #ffffff }
  .room { fill: #f6f8fa; stroke: #8c959f }
  .main { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5 }
  .outside { fill: #fff8c5; stroke: #9a6700 }
  .frame { fill: none; stroke: #8c959f; stroke-dasharray: 5 4 }
  polyline { fill: none; stroke: #8c959f; stroke-width: 1.3; marker-end: url(#end) }
  .strong { stroke: #0969da; stroke-width: 2; marker-end: url(#strong-end) }
  .end { fill: #8c959f } .strong-end { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .name { fill: #f0f6fc } .ground { fill: #0d1117 }
    .room { fill: #151b23; stroke: #656c76 } .main { fill: #0c2d6b; stroke: #4493f8 } .outside { fill: #341a00; stroke: #d29922 }
    .frame, polyline { stroke: #656c76 } .strong { stroke: #4493f8 } .end { fill: #656c76 } .strong-end { fill: #4493f8 }
  }`

// picture draws the parts of the service.
func picture() []byte {
	var b strings.Builder
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1056 608" role="img">
<title>The parts of refersam, and the way of a request through them</title>
<style>` + style + `
</style>
<defs>
`)
	for _, end := range []string{"end", "strong-end"} {
		fmt.Fprintf(&b, `<marker id="%s" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">`+
			`<path class="%[1]s" d="M0 0 8 4 0 8z"/></marker>`+"\n", end)
	}
	b.WriteString("</defs>\n" + `<rect class="ground" width="1056" height="608" rx="8"/>` + "\n")
	for _, p := range parts {
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="6"/>`+"\n", p.class, p.x, p.y, p.w, p.h)
		name, caption := html.EscapeString(p.name), html.EscapeString(p.caption)
		if p.class == "frame" {
			fmt.Fprintf(&b, `<text class="title" x="%d" y="%d">%s</text>`+"\n", p.x+12, p.y+20, name)
			continue
		}
		center, middle := p.x+p.w/2, p.y+p.h/2
		fmt.Fprintf(&b, `<text class="name" x="%d" y="%d">%s</text>`+"\n", center, middle-3, name)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", center, middle+14, caption)
	}
	for _, a := range arrows {
		class := ""
		if a.class != "" {
			class = fmt.Sprintf(` class="%s"`, a.class)
		}
		fmt.Fprintf(&b, `<polyline%s points="%s"/>`+"\n", class, a.points)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}
