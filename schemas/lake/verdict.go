package lake

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Why a bucket cannot be used. Errors of remote buckets wrap one of these where the cause is clear; Ping's say in one
// sentence what to do about it.
var (
	ErrCredentials = errors.New("the store refuses the credentials")
	ErrNoBucket    = errors.New("there is no such bucket")
	ErrUnreachable = errors.New("the store does not answer")
	ErrRegion      = errors.New("the bucket is in another region")
	ErrClock       = errors.New("this machine's clock is wrong")
)

// errExists says that an object which had to be new is there already.
var errExists = errors.New("object exists already")

// errNoCredentials is wrapped by the failure to find any.
var errNoCredentials = errors.New("no credentials were found")

// verdict is what the lake makes of a store's error.
type verdict int

const (
	permanent verdict = iota // trying again would not help
	transient
	notThere  // no object of that key
	taken     // the object is there and must not be
	noBucket  //
	denied    // credentials are missing, wrong, or may not do this
	elsewhere // wrong region or endpoint
	skewed    // the signature's time is too far from the store's: the client learns the store's time from the refusal
)

// reply is a store's answer: its HTTP status, 0 when it did not answer, and its own word for the error.
type reply struct {
	status int
	code   string
}

// verdicts are the words that say more than the status does.
var verdicts = map[string]verdict{
	"NoSuchKey": notThere, "NotFound": notThere, "BlobNotFound": notThere,
	"NoSuchBucket": noBucket, "ContainerNotFound": noBucket, "ContainerBeingDeleted": noBucket,
	"InvalidAccessKeyId": denied, "SignatureDoesNotMatch": denied, "ExpiredToken": denied, "InvalidToken": denied, "TokenRefreshRequired": denied,
	"XAdminUserNotFound":   denied, // versitygw's word, with 404
	"RequestTimeTooSkewed": skewed,
	"RequestTimeout":       transient, // S3 answers so with 400
	"InternalError":        transient, // and so with 200, where it had begun to answer before it knew
	"SlowDown":             transient, "Throttling": transient, "ThrottlingException": transient, "RequestLimitExceeded": transient,
	"ConditionalRequestConflict": transient, "OperationAborted": transient, // S3's 409: others are at the same key at this moment
	"PermanentRedirect": elsewhere, "AuthorizationHeaderMalformed": elsewhere, "IllegalLocationConstraintException": elsewhere,
	"BlobAlreadyExists": taken, "ConditionNotMet": taken, "PreconditionFailed": taken,
}

func (r reply) verdict() verdict {
	if v, ok := verdicts[r.code]; ok {
		return v
	}
	switch {
	case r.status == http.StatusNotFound && r.code == "":
		return notThere
	case r.status == http.StatusUnauthorized, r.status == http.StatusForbidden:
		return denied
	case r.status == http.StatusPreconditionFailed:
		return taken
	case r.status == http.StatusRequestTimeout, r.status == http.StatusTooManyRequests:
		return transient
	case r.status == http.StatusNotImplemented:
		return permanent
	case r.status >= http.StatusInternalServerError:
		return transient
	case r.status >= http.StatusMultipleChoices && r.status < http.StatusBadRequest:
		return elsewhere
	}
	return permanent
}

// judge says what to make of an error, given the store's answer. Without an answer something is wrong between here and there, which
// may pass: connections that break, replies that are torn or make no sense. Doubt counts as that, since attempts are bounded.
func judge(err error, r reply) verdict {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errTimeout), errors.Is(err, errShort):
		return transient
	case r.status != 0 || r.code != "":
		if r.status >= http.StatusOK && r.status < http.StatusMultipleChoices && r.code == "" {
			return transient // a good status whose rest did not come
		}
		return r.verdict()
	case errors.Is(err, errNoCredentials):
		return denied
	case errors.Is(err, context.Canceled), errors.As(err, &certificate):
		return permanent
	}
	return transient
}

// explain wraps an error in what callers and operators know it by.
func explain(err error, v verdict, r reply) error {
	switch v {
	case notThere:
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	case taken:
		return fmt.Errorf("%w (%w)", errExists, err)
	case noBucket:
		return fmt.Errorf("%w (%w)", ErrNoBucket, err)
	case denied:
		return fmt.Errorf("%w (%w)", ErrCredentials, err)
	case elsewhere:
		return fmt.Errorf("%w (%w)", ErrRegion, err)
	case skewed:
		return fmt.Errorf("%w (%w)", ErrClock, err)
	case transient:
		if r.status == 0 {
			return fmt.Errorf("%w (%w)", ErrUnreachable, err)
		}
	}
	return err
}

// StoreError says why a bucket cannot be used, in one sentence for whoever set it up.
type StoreError struct {
	Bucket string // its URI without secrets
	Reason error  // one of the errors above, or the store's own
	Detail string // the store's word for it, or the network's; may be empty
	Help   string // what to do
	cause  error
}

// Error implements error.
func (e *StoreError) Error() string {
	text := "bucket " + e.Bucket + ": " + e.Reason.Error()
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	if e.Help != "" {
		text += "; " + e.Help
	}
	return text
}

// Unwrap gives errors.Is the reason and the store's own error.
func (e *StoreError) Unwrap() []error { return []error{e.Reason, e.cause} }

// storeError makes the sentence. Help for credentials is the store's own.
func storeError(bucket, login string, err error, r reply) error {
	e := &StoreError{Bucket: bucket, Detail: r.code, cause: err}
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errNoCredentials):
		e.Reason, e.Detail, e.Help = ErrCredentials, errNoCredentials.Error(), login
	case errors.Is(err, ErrCredentials):
		e.Reason, e.Help = ErrCredentials, "check them: "+login
	case errors.Is(err, ErrNoBucket), errors.Is(err, ErrNotFound): // a listing needs no object
		e.Reason, e.Help = ErrNoBucket, "create it, or correct the object store URI"
	case errors.Is(err, ErrRegion):
		e.Reason, e.Help = ErrRegion, "correct region or endpoint in the object store URI"
	case errors.Is(err, ErrClock):
		e.Reason, e.Help = ErrClock, "set it by NTP: the store refuses requests whose time is more than minutes off"
	case errors.Is(err, ErrUnreachable), errors.Is(err, context.DeadlineExceeded), errors.As(err, &certificate):
		e.Reason, e.Detail, e.Help = ErrUnreachable, networkWord(err), "check the endpoint, name resolution and the network"
	default:
		e.Reason = err
	}
	return e
}

// networkWord is what a failure of the network comes down to.
func networkWord(err error) string {
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &name):
		return name.Error()
	case errors.As(err, &certificate):
		return certificate.Error()
	case errors.As(err, &op):
		return op.Error()
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded):
		return errTimeout.Error()
	}
	return oneLine(err)
}

func oneLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}
