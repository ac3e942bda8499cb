// Package web holds the pages of the service: a folder for each page, and shared/
// for what pages have in common. A page is static; its script talks to the API.
package web

import (
	"embed"

	"github.com/refersam/refersam/api"
)

// Files are the files of all pages.
//
//go:embed segment docs shared samples
var Files embed.FS

// Page is a page of the service.
type Page struct {
	// Path is where the page is served, and File its HTML in Files.
	Path, File string
	// InlineImages permits data: images.
	InlineImages bool
}

// Pages are all pages. To add one, add its folder and an entry here.
var Pages = []Page{
	{Path: "/", File: "segment/index.html"},
	{Path: api.RouteDocs, File: "docs/index.html", InlineImages: true}, // Swagger UI's style sheet has them
}
