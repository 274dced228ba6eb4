package mlflow

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// PutArtifact stores a file among a run's artifacts, where the server takes artifacts itself. Where a run's artifacts
// lie elsewhere, the error says so: only a client that may write there can put one.
func (c *Client) PutArtifact(ctx context.Context, caller Caller, run Run, name, contentType string, content []byte) error {
	u, err := url.Parse(run.ArtifactURI)
	if err != nil || u.Scheme != "mlflow-artifacts" {
		return fmt.Errorf("the artifacts of run %s lie at %q, which this server does not pass on; write the file and upload it by `mlflow artifacts log-artifact`", run.ID, run.ArtifactURI)
	}
	if u.Host != "" && u.Host != c.base.Host { // credentials go nowhere else
		return fmt.Errorf("the artifacts of run %s lie at the server %s; give that one as the tracking URI", run.ID, u.Host)
	}
	path := "mlflow-artifacts/artifacts/" + strings.Trim(u.Path, "/") + "/" + name
	if err := c.send(ctx, caller, http.MethodPut, path, "", contentType, content, nil); err != nil {
		return fmt.Errorf("store %s in run %s: %w", name, run.ID, err)
	}
	return nil
}
