package alert

import (
	"net/http"
	"strings"
	"testing"
)

func TestNoAlertGoesToTheMetadataService(t *testing.T) {
	for address, refused := range map[string]bool{"169.254.169.254:80": true, "[fe80::1%eth0]:443": true, "[::ffff:169.254.169.254]:80": true, "127.0.0.1:80": false, "[2001:db8::1]:443": false} {
		if err := noLinkLocal("tcp", address, nil); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
	req, err := http.NewRequest("POST", "http://169.254.169.254/latest", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := newClient(Config{}).Do(req); err == nil {
		resp.Body.Close()
		t.Error("it was sent")
	} else if !strings.Contains(err.Error(), "link-local") {
		t.Error(err)
	}
}
