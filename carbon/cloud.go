package carbon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// detectionTime is all that asking the clouds may take: a machine that is in none of them starts that much later.
const detectionTime = 300 * time.Millisecond

// metadataAddress is the link-local address at which the three clouds answer their own machines. It is asked as it stands
// there, and not by a name, which a resolver could send elsewhere.
const metadataAddress = "169.254.169.254:80"

// Detector finds out in which cloud region this machine is.
type Detector struct {
	Sysfs string // root of the sensor files, for what the firmware says of the machine
	// Dial opens a connection to the metadata service; nil: net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Detect returns the code of the region, as in "aws:eu-west-1". It is empty where no cloud answers, which is not an error.
// The region may be one that no table has. Nothing but this machine's own files and its cloud's metadata service is asked.
func (d Detector) Detect(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, detectionTime)
	defer cancel()
	dial := d.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	client := &http.Client{
		Transport: &http.Transport{ // no HTTP proxy: it would answer for its own machine
			DisableKeepAlives: true,
			DialContext: func(_ context.Context, network, _ string) (net.Conn, error) {
				return dial(ctx, network, metadataAddress) // the transport's own context goes on after we are gone
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	clouds := map[string]func(context.Context, *http.Client) (string, error){"aws": awsRegion, "gcp": gcpRegion, "azure": azureRegion}
	if hint := d.hint(); hint != "" {
		clouds = map[string]func(context.Context, *http.Client) (string, error){hint: clouds[hint]}
	}
	found := make(chan string, len(clouds))
	for provider, ask := range clouds {
		go func() {
			region, err := ask(ctx, client)
			if err != nil {
				found <- ""
				return
			}
			found <- provider + ":" + region
		}()
	}
	for range clouds {
		select {
		case region := <-found:
			if region != "" {
				return region
			}
		case <-ctx.Done():
			return ""
		}
	}
	return ""
}

// hint tells from the firmware's tables whose machine this is; empty where they do not say. Then all are asked.
func (d Detector) hint() string {
	text := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(d.Sysfs, "class/dmi/id", name))
		return strings.ToLower(strings.TrimSpace(string(b)))
	}
	switch {
	// Nitro says "Amazon EC2"; Xen has "amazon" in its BIOS version only (AWS, "Detect whether a host is an EC2 instance").
	case strings.Contains(text("sys_vendor"), "amazon"), strings.Contains(text("bios_vendor"), "amazon"), strings.Contains(text("bios_version"), "amazon"):
		return "aws"
	case text("sys_vendor") == "google", strings.Contains(text("product_name"), "google compute engine"):
		return "gcp"
	// Hyper-V elsewhere is Microsoft's too; only Azure has this asset tag.
	case text("chassis_asset_tag") == "7783-7084-3265-9085-8269-3286-77":
		return "azure"
	}
	return ""
}

// awsRegion asks AWS, by version 2 of its service: a token first.
func awsRegion(ctx context.Context, c *http.Client) (string, error) {
	token, _, err := metadata(ctx, c, http.MethodPut, "169.254.169.254", "/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
	if err != nil {
		return "", err
	}
	region, _, err := metadata(ctx, c, http.MethodGet, "169.254.169.254", "/latest/meta-data/placement/region", "X-Aws-Ec2-Metadata-Token", token)
	return region, err
}

// gcpRegion asks Google for the zone alone, "projects/123/zones/europe-west1-b"; other answers hold secrets.
func gcpRegion(ctx context.Context, c *http.Client) (string, error) {
	answer, header, err := metadata(ctx, c, http.MethodGet, "metadata.google.internal", "/computeMetadata/v1/instance/zone", "Metadata-Flavor", "Google")
	if err != nil {
		return "", err
	}
	zone := answer[strings.LastIndex(answer, "/")+1:]
	dash := strings.LastIndex(zone, "-")
	if header.Get("Metadata-Flavor") != "Google" || !strings.HasPrefix(answer, "projects/") || dash <= 0 {
		return "", errors.New("not Google's metadata service")
	}
	return zone[:dash], nil
}

// azureRegion asks Azure.
func azureRegion(ctx context.Context, c *http.Client) (string, error) {
	region, _, err := metadata(ctx, c, http.MethodGet, "169.254.169.254",
		"/metadata/instance/compute/location?api-version=2021-02-01&format=text", "Metadata", "true")
	return region, err
}

// metadata makes one request with one header. An answer that is no single short word is an error.
func metadata(ctx context.Context, c *http.Client, method, host, path, header, value string) (string, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		return "", nil, err
	}
	req.Header.Set(header, value)
	res, err := c.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 513))
	if err != nil {
		return "", nil, err
	}
	text := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK || text == "" || len(body) > 512 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' }) {
		return "", nil, fmt.Errorf("the metadata service answered %d", res.StatusCode)
	}
	return text, res.Header, nil
}

// Here returns the place of a region that Detect found; the world's average, which says so, for one that no table has and
// for none.
func Here(region string) Place {
	p := World()
	switch known, ok := tables().places[strings.ToLower(region)]; {
	case region == "":
	case ok && known.Level == CloudRegion:
		return known
	default:
		p.Source = fmt.Sprintf("world average, since %s is in no table (IEA 2019, of 2018)", region)
	}
	return p
}
