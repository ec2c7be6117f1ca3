package enrolment

import (
	"context"
	"time"

	"github.com/umbra-dr/umbra/pkg/identity"
)

// ownRetry is the least time between two of the control plane's own certificates, also when one could not be made, or
// the authority itself is about to end.
const ownRetry = time.Minute

// Own makes the control plane's own credentials. names are the host names and addresses that it is reached by.
func (o *Office) Own(names []string) (*identity.Credentials, error) {
	return o.Authority.Issue(identity.Grant{ID: identity.ControlPlane(), Life: ownLife, Names: names}, o.Clock.Now())
}

// KeepOwn replaces the source's credentials, which Own made, before they end, until the context ends.
func (o *Office) KeepOwn(ctx context.Context, source *identity.Source, names []string) {
	for {
		if o.Clock.Wait(ctx, max(ownRetry, source.Current().RenewTime().Sub(o.Clock.Now()))) != nil {
			return
		}
		renewed, err := o.Own(names)
		if err == nil {
			source.Set(renewed)
			continue
		}
		o.Log.Error("the control plane's own certificate is not renewed, trying again", "ends", source.Current().NotAfter(), "error", err)
	}
}
