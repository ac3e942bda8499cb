package gateway

import (
	"runtime/debug"

	"github.com/gin-gonic/gin"
)

// Build says what this program was built from.
type Build struct {
	// Version is the module's version, "(devel)" for a build of a checkout.
	Version string `json:"version"`
	// Revision is the commit, empty when not known.
	Revision string `json:"revision,omitempty"`
	// Modified reports whether the checkout differed from the commit.
	Modified bool `json:"modified"`
	// Go is the version of the compiler.
	Go string `json:"go"`
}

// ReadBuild returns what the linker wrote down about the running program.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{Version: "unknown"}
	}
	b := Build{Version: info.Main.Version, Go: info.GoVersion}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// version answers GET /version.
func version(c *gin.Context) error { return writeJSON(c, ReadBuild()) }
