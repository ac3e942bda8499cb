package local

import (
	"fmt"
	"slices"

	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
)

// RowLimit says that a full batch does not fit into the shared memory that is free.
type RowLimit struct {
	Rows int // how many rows per batch do fit, at least 1
	Full int // how many rows a full batch has

	Free, Need int64 // bytes that are free, and that full batches need
}

// String says what is missing and what to do.
func (l *RowLimit) String() string {
	return fmt.Sprintf("batches have at most %d of %d rows, because %s has %d MiB free and full batches need %d MiB: "+
		"give the container more (docker run --shm-size=256m)", l.Rows, l.Full, triton.SharedMemory, l.Free>>20, l.Need>>20)
}

// Each Python model has a region of shared memory of its own, which holds the
// inputs and outputs of one batch and grows by whole MiB. Measured with batches of
// 8 rows, regions were 1.04 to 1.35 times as large as the tensors.
const (
	regionBase        = 2 << 20
	regionNumerator   = 9
	regionDenominator = 8
)

// RowLimit returns nil if full batches of the repository's ensembles fit into the
// shared memory that is free, and else how many rows do. tritonserver fails at a
// batch that does not fit, every time.
func (c *Config) RowLimit() (*RowLimit, error) {
	ensembles, _, err := triton.Ensembles(c.Repository, c.ConfigName)
	if err != nil {
		return nil, err
	}
	free, err := freeSharedMemory()
	if err != nil {
		return nil, err
	}
	limit := &RowLimit{Free: free}
	var counted []string
	var base, row int64
	for _, ensemble := range ensembles {
		_, config, err := triton.ConfigFile(c.Repository, c.ConfigName, ensemble)
		if err != nil {
			return nil, err
		}
		limit.Full = max(limit.Full, int(config.GetMaxBatchSize()))
		for _, step := range config.GetEnsembleScheduling().GetStep() {
			name := step.GetModelName()
			if slices.Contains(counted, name) {
				continue
			}
			counted = append(counted, name)
			_, stage, err := triton.ConfigFile(c.Repository, c.ConfigName, name)
			if err != nil {
				continue // the ensemble is not served
			}
			base += regionBase
			for _, tensor := range stage.GetInput() {
				row += size(tensor)
			}
			for _, tensor := range stage.GetOutput() {
				row += size(tensor)
			}
		}
	}
	row = row * regionNumerator / regionDenominator
	limit.Need = base + row*int64(limit.Full)
	if limit.Need <= free {
		return nil, nil
	}
	limit.Rows = int(max(1, (free-base)/max(row, 1)))
	return limit, nil
}

// size is how many bytes a tensor has per row.
func size(tensor interface {
	GetDataType() pb.DataType
	GetDims() []int64
}) int64 {
	bytes := int64(4)
	switch tensor.GetDataType() {
	case pb.DataType_TYPE_BOOL, pb.DataType_TYPE_UINT8, pb.DataType_TYPE_INT8:
		bytes = 1
	case pb.DataType_TYPE_FP16, pb.DataType_TYPE_BF16, pb.DataType_TYPE_UINT16, pb.DataType_TYPE_INT16:
		bytes = 2
	case pb.DataType_TYPE_FP64, pb.DataType_TYPE_UINT64, pb.DataType_TYPE_INT64:
		bytes = 8
	}
	for _, dim := range tensor.GetDims() {
		bytes *= max(dim, 1)
	}
	return bytes
}
