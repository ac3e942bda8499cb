package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/api/openapi"
	"github.com/refersam/refersam/gateway/web"
)

// pages serves files that do not change while the service runs: the embedded web
// pages, and the description of the API.
type pages struct {
	files map[string]pageFile // of package web, by name
	spec  map[string]pageFile // openapi.json and openapi.yaml
}

type pageFile struct {
	content   []byte
	mediaType string // "" chooses it by the file's name
	etag      string
}

func newPages() (*pages, error) {
	p := &pages{files: make(map[string]pageFile), spec: make(map[string]pageFile)}
	err := fs.WalkDir(web.Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := web.Files.ReadFile(name)
		if err != nil {
			return err
		}
		p.files[name] = newPageFile(content, "")
		return nil
	})
	if err != nil {
		return nil, err
	}
	asJSON, asYAML, err := openapi.Write()
	if err != nil {
		return nil, err
	}
	p.spec["openapi.json"] = newPageFile(asJSON, api.MediaJSON)
	p.spec["openapi.yaml"] = newPageFile(asYAML, api.MediaYAML)
	return p, nil
}

func newPageFile(content []byte, mediaType string) pageFile {
	sum := sha256.Sum256(content)
	return pageFile{content, mediaType, `"` + hex.EncodeToString(sum[:12]) + `"`}
}

// file serves one file.
func (p *pages) file(name string) gin.HandlerFunc {
	file, ok := p.spec[name]
	if !ok {
		file = p.files[name]
	}
	return func(c *gin.Context) { file.serve(c, name) }
}

// serve serves the file that the path names.
func (p *pages) serve(c *gin.Context) {
	name := strings.TrimPrefix(c.Param("file"), "/")
	file, ok := p.files[name]
	if !ok {
		fail(c, nothingHere(c))
		return
	}
	file.serve(c, name)
}

func (f *pageFile) serve(c *gin.Context, name string) {
	c.Header("Cache-Control", "no-cache")
	c.Header("ETag", f.etag)
	if f.mediaType != "" {
		c.Header("Content-Type", f.mediaType)
	}
	c.Request.Header.Del("Range") // files are small, and errors of http.ServeContent about ranges are not problems
	http.ServeContent(c.Writer, c.Request, path.Base(name), time.Time{}, bytes.NewReader(f.content))
}
