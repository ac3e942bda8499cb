package gateway

import (
	"runtime/debug"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam/api"
)

// ReadBuild returns the build information that the linker stored in the running
// program.
func ReadBuild() api.Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return api.Build{Version: "unknown"}
	}
	b := api.Build{Version: info.Main.Version, Go: info.GoVersion}
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
