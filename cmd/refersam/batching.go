package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/schedule"
)

type batchingCommand struct {
	Admin      string         `default:"" placeholder:"HOST:PORT" help:"Address of the service's administration. Default: REFERSAM_ADMIN_LISTEN, else 127.0.0.1:8081."`
	Mode       *schedule.Mode `placeholder:"adaptive|fixed|off" help:"How the scheduler forms batches of rows."`
	MaxRows    *int           `placeholder:"N" help:"Maximum of rows per batch; 0 uses the model's."`
	MaxWait    *time.Duration `placeholder:"DURATION" help:"How long a row may wait for others."`
	Percentile *float64       `placeholder:"P" help:"Percentile of the predicted latency that must meet a deadline."`
	Admission  *bool          `negatable:"" help:"Whether requests that would miss their deadline are refused at once."`
	Hedge      *bool          `negatable:"" help:"Whether a late batch is also sent to a second model server."`
}

// Run prints the settings in force, after the change if there is one, and the state
// of the service's model servers.
func (c *batchingCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	change := gateway.BatchingSettings{
		Mode: c.Mode, MaxRows: c.MaxRows, Percentile: c.Percentile, Admission: c.Admission, Hedge: c.Hedge,
	}
	if c.MaxWait != nil {
		ms := float64(*c.MaxWait) / float64(time.Millisecond)
		change.MaxWaitMS = &ms
	}
	admin := c.Admin
	if admin == "" {
		admin = cfg.Gateway.AdminListen
	}
	if admin == gateway.AdminOff {
		return errors.New("REFERSAM_ADMIN_LISTEN is off: give the address of the service's administration with --admin")
	}
	method := http.MethodGet
	if change != (gateway.BatchingSettings{}) {
		method = http.MethodPatch
	}
	var now gateway.BatchingSettings
	if err := call(ctx, method, "http://"+admin+"/v1/admin/batching", &change, &now); err != nil {
		return err
	}
	var replicas struct {
		Replicas []gateway.AdminReplica `json:"replicas"`
	}
	if err := call(ctx, http.MethodGet, "http://"+admin+"/v1/admin/replicas", nil, &replicas); err != nil {
		return err
	}
	table := tabwriter.NewWriter(m.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "mode\t%s\nmax rows\t%d\nmax wait\t%g ms\npercentile\t%g\nadmission\t%t\nhedge\t%t\n",
		*now.Mode, *now.MaxRows, *now.MaxWaitMS, *now.Percentile, *now.Admission, *now.Hedge)
	for _, r := range replicas.Replicas {
		state := "not usable"
		if r.Usable {
			state = "usable"
		}
		fmt.Fprintf(table, "\n%s\t%s, %d of %d batches under way, %d rows answered, %d batches failed\n",
			r.Name, state, r.InFlight, r.Window, r.Rows, r.Failures)
		for _, p := range r.Paces {
			if !p.Usable {
				fmt.Fprintf(table, "%s\tnot used: %s\n", p.Model, cmp.Or(p.Cause, "it has not been measured yet"))
				continue
			}
			fmt.Fprintf(table, "%s\t%s\n", p.Model, speed(&p))
		}
	}
	return table.Flush()
}

// speed describes the estimated speed of a model on a server.
func speed(p *gateway.AdminPace) string {
	if len(p.Sizes) == 0 {
		return "not measured yet"
	}
	var alone, busy []string
	for _, size := range p.Sizes {
		rows := fmt.Sprintf("%d rows", size.Rows)
		if size.Rows == 1 {
			rows = "1 row"
		}
		about := ""
		if size.Batches == 0 {
			about = "about "
		}
		alone = append(alone, fmt.Sprintf("%s %s%.0f ms", rows, about, size.Alone))
		busy = append(busy, fmt.Sprintf("%s%.0f ms", about, size.Spaced))
	}
	return fmt.Sprintf("%s; when busy one every %s; up to %.2f times as long", strings.Join(alone, ", "), strings.Join(busy, ", "), p.Late)
}

// call sends a request to a service's administration. in is the body, or nil; out
// receives the decoded answer.
func call(ctx context.Context, method, url string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("is the service running? %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var problem api.Problem
		if json.Unmarshal(answer, &problem) != nil || problem.Detail == "" {
			return fmt.Errorf("%s %s: %s", method, url, resp.Status)
		}
		return errors.New(problem.Detail)
	}
	return json.Unmarshal(answer, out)
}
