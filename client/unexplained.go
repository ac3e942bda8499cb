package client

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/refersam/refersam"
)

// maxExcerpt is how many bytes of a page an error quotes.
const maxExcerpt = 120

// unexplained returns the error for an answer that is not a problem of the service
// (RFC 9457): a proxy has written it, or something that is not a refersam service.
func unexplained(resp *http.Response, body []byte) *refersam.Error {
	e := refersam.Errorf(codeOf(resp.StatusCode), "%s", unexplainedMessage(resp))
	e.Err = fmt.Errorf("status %d", resp.StatusCode)
	if server := resp.Header.Get("Server"); server != "" {
		e.Err = fmt.Errorf("%w from %q", e.Err, server)
	}
	if excerpt := strings.TrimSpace(string(body[:min(len(body), maxExcerpt)])); excerpt != "" {
		e.Err = fmt.Errorf("%w, with %q", e.Err, strings.ToValidUTF8(excerpt, "\uFFFD"))
	}
	return e
}

// unexplainedMessage says what such an answer usually means, and what to do.
func unexplainedMessage(resp *http.Response) string {
	status := resp.StatusCode
	if to := resp.Header.Get("Location"); status/100 == 3 && to != "" {
		return fmt.Sprintf("The service redirects to %q; use its own address.", to)
	}
	switch status {
	case http.StatusUnauthorized:
		return "The credentials were not accepted (status 401); check the API key, and what a proxy before the service requires."
	case http.StatusForbidden:
		return "The request was refused before it reached the service (status 403); check what the proxy before it allows."
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return fmt.Sprintf("There is no refersam service at this address (status %d); check the address with its path.", status)
	case http.StatusRequestTimeout:
		return "The request arrived too slowly (status 408); send a smaller picture on a slow connection."
	case http.StatusRequestEntityTooLarge:
		size := ""
		if resp.Request != nil && resp.Request.ContentLength > 0 {
			size = fmt.Sprintf(" of %d bytes", resp.Request.ContentLength)
		}
		return "The request" + size + " is larger than a proxy before the service accepts (status 413); " +
			"send a smaller picture or fewer at once, or raise the limit of the proxy."
	case http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return fmt.Sprintf("The address or the headers of the request are longer than a proxy before the service accepts (status %d); shorten them.", status)
	case http.StatusTooManyRequests:
		return "A proxy before the service accepts no more requests at the moment (status 429); wait, or send fewer."
	case http.StatusBadGateway:
		return "A proxy gets no answer from the service behind it (status 502); check that the service is running."
	case http.StatusServiceUnavailable:
		return "The service, or a proxy before it, is not available at the moment (status 503); try again later."
	case http.StatusGatewayTimeout:
		return "A proxy does not wait long enough for the service behind it (status 504); raise its timeout, send fewer pictures at once, or submit a job."
	}
	return fmt.Sprintf("The answer has the status %d and gives no reason; check the address and any proxy before the service.", status)
}
