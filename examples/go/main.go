// Notes that require the scope notes:read. Latchkey checks the credential of each request.
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

var latchkey = http.Client{
	Timeout:       2 * time.Second,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 100},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// The caller is in the headers of Latchkey's response, never in those of the request.
type handler func(w http.ResponseWriter, r *http.Request, caller http.Header)

func requires(scope string, next handler) http.HandlerFunc {
	address := env("LATCHKEY_URL", "http://127.0.0.1:8080") + "/authz?scope=" + url.QueryEscape(scope)
	authz, err := http.NewRequest(http.MethodHead, address, nil)
	if err != nil {
		log.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		question := authz.Clone(r.Context())
		for _, name := range []string{"Token", "Authorization", "X-Request-Id"} {
			question.Header[name] = r.Header[name]
		}
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		question.Header.Set("X-Forwarded-For", client)
		answer, err := latchkey.Do(question)
		if err != nil {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer answer.Body.Close()
		switch answer.StatusCode {
		case 200:
			next(w, r, answer.Header)
		case 400, 401, 403, 429, 503:
			w.Header()["Www-Authenticate"] = answer.Header["Www-Authenticate"]
			w.Header()["Retry-After"] = answer.Header["Retry-After"]
			w.WriteHeader(answer.StatusCode)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func notes(w http.ResponseWriter, _ *http.Request, caller http.Header) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"user": caller.Get("Remote-User"), "notes": []string{"Buy milk"}})
}

func main() {
	// From Go 1.22 on, the pattern can be "GET /notes".
	http.HandleFunc("/notes", requires("notes:read", notes))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+env("PORT", "8003"), nil))
}
