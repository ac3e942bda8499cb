package triton_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
)

// largeRepository has two ensembles that share a stage with rows of the given size.
func largeRepository(t *testing.T, rowBytes int64) string {
	t.Helper()
	root := t.TempDir()
	write := func(model, config string) {
		folder := filepath.Join(root, model)
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "config.pbtxt"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"refersam_set_one", "refersam_set_two"} {
		write(name, fmt.Sprintf("name: %q platform: \"ensemble\" max_batch_size: 8 ensemble_scheduling { step { model_name: \"refersam_set_image\" } }", name))
	}
	write("refersam_set_image", fmt.Sprintf("max_batch_size: 8\n"+
		"input { name: \"image\" data_type: TYPE_UINT8 dims: [%d, 2] }\noutput { name: \"map\" data_type: TYPE_FP32 dims: [%d] }", rowBytes/4, rowBytes/8))
	return root
}

// Batches must fit into the shared memory that is free when the server starts.
func TestRowLimit(t *testing.T) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(triton.SharedMemory, &stat); err != nil {
		t.Fatal(err)
	}
	free := int64(stat.Bavail) * stat.Bsize
	for name, test := range map[string]struct {
		rowBytes int64
		rows     int // 0: no limit
	}{
		"a tenth":       {free / 10 * 8 / 9, 0},
		"a quarter":     {free / 4 * 8 / 9 * 9 / 10, 4},
		"a half":        {free / 2 * 8 / 9 * 9 / 10, 2},
		"more than all": {2 * free, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := local.DefaultConfig()
			cfg.Repository = largeRepository(t, test.rowBytes)
			limit, err := cfg.RowLimit()
			if err != nil {
				t.Fatal(err)
			}
			if test.rows == 0 {
				if limit != nil {
					t.Errorf("%s", limit)
				}
				return
			}
			if limit == nil || limit.Rows != test.rows || limit.Full != 8 || limit.Need <= limit.Free {
				t.Fatalf("%+v, want %d of 8 rows", limit, test.rows)
			}
			if text := limit.String(); !strings.Contains(text, fmt.Sprintf("at most %d of 8 rows", test.rows)) || !strings.Contains(text, "--shm-size") {
				t.Errorf("%q", text)
			}
		})
	}
	cfg := localConfig(t)
	if limit, err := cfg.RowLimit(); limit != nil || err != nil {
		t.Errorf("a small model: %v, %v", limit, err)
	}
}
