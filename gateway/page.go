package gateway

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
)

//go:embed web
var webFiles embed.FS

// page serves the embedded web page: index.html at / and the rest under /web/.
type page struct {
	files map[string]pageFile // by path below web/
}

type pageFile struct {
	content []byte
	etag    string
}

func newPage() (*page, error) {
	p := &page{files: make(map[string]pageFile)}
	err := fs.WalkDir(webFiles, "web", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := webFiles.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		p.files[strings.TrimPrefix(name, "web/")] = pageFile{content, `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	return p, err
}

func (p *page) serve(c *gin.Context) {
	name := strings.TrimPrefix(c.Param("file"), "/")
	if c.FullPath() == "/" {
		name = "index.html"
	}
	file, ok := p.files[name]
	if !ok {
		fail(c, refersam.Errorf(refersam.CodeNotFound, "There is nothing at %s.", c.Request.URL.Path))
		return
	}
	c.Header("Cache-Control", "no-cache")
	c.Header("ETag", file.etag)
	http.ServeContent(c.Writer, c.Request, path.Base(name), time.Time{}, bytes.NewReader(file.content))
}
