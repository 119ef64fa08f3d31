package httpproxy

import (
	"net/http"
	"reflect"
	"time"
)

// continuePatience is how long an HTTP/2 server may take to say whether it wants a body that the client holds back.
// Then the body is asked for, as clients do by themselves (curl after one second): servers that never send 100 are
// common on HTTP/2.
const continuePatience = time.Second

// awaitsContinue reports whether an HTTP/2 client holds its body back until it is told to go on. net/http2 takes the
// Expect field out of the request and answers it by itself with the first read of the body; the one trace that is left
// is a field of the body, which is only read here. Where a later version has none, the client is told to
// go on with the first read, before the server was asked: less faithful, and TestContinueIsTheServersToSay fails.
func awaitsContinue(r *http.Request) bool {
	body := reflect.ValueOf(r.Body)
	if body.Kind() != reflect.Pointer || body.Elem().Kind() != reflect.Struct {
		return false
	}
	waits := body.Elem().FieldByName("needsContinue")
	return waits.Kind() == reflect.Bool && waits.Bool()
}
