package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
)

// refuse answers in MLflow's form of an error, so that clients print the message.
func refuse(w http.ResponseWriter, status int, code, message string) {
	body, err := json.Marshal(struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}{code, message})
	if err != nil {
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// badBody answers for a body that broke off, stopped coming, or is no HTTP.
func badBody(w http.ResponseWriter, fault error) {
	w.Header().Set("Connection", "close")
	if isTimeout(fault) {
		refuse(w, http.StatusRequestTimeout, "BAD_REQUEST", "mlflow-emissions-proxy: the request's body has stopped coming")
		return
	}
	refuse(w, http.StatusBadRequest, "BAD_REQUEST", "mlflow-emissions-proxy: the request's body cannot be read: "+fault.Error())
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
