package api

import (
	"context"
	"errors"
	"strings"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/enrolment"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

type identityService struct {
	umbrav1.UnimplementedIdentityServiceServer
	Deps
}

func (s *identityService) CreateJoinToken(ctx context.Context, request *umbrav1.CreateJoinTokenRequest) (*umbrav1.CreateJoinTokenResponse, error) {
	host, err := parseName("host", hostPrefix, request.GetHost())
	if err != nil {
		return nil, err
	}
	token, end, err := s.Office.JoinToken(ctx, host, request.GetTtl().AsDuration())
	if err != nil {
		return nil, err
	}
	return &umbrav1.CreateJoinTokenResponse{Token: token.String(), ExpireTime: timestamp(end)}, nil
}

func (s *identityService) Enroll(ctx context.Context, request *umbrav1.EnrollRequest) (*umbrav1.EnrollResponse, error) {
	host, made, err := s.Office.Enroll(ctx, request.GetToken(), request.GetCertificateSigningRequest())
	if errors.Is(err, store.ErrBadJoinToken) {
		return nil, access.BadJoinToken()
	}
	if err != nil {
		return nil, certificateError(err)
	}
	return &umbrav1.EnrollResponse{Host: hostName(host), Certificate: certificate(made)}, nil
}

func (s *identityService) RenewCertificate(ctx context.Context, request *umbrav1.RenewCertificateRequest) (*umbrav1.RenewCertificateResponse, error) {
	caller := access.From(ctx)
	made, err := s.Office.Renew(caller.HostID, caller.Generation, request.GetCertificateSigningRequest())
	if err != nil {
		return nil, certificateError(err)
	}
	return &umbrav1.RenewCertificateResponse{Certificate: certificate(made)}, nil
}

func (s *identityService) RevokeHost(ctx context.Context, request *umbrav1.RevokeHostRequest) (*umbrav1.RevokeHostResponse, error) {
	host, err := parseName("name", hostPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.Office.Revoke(ctx, identity.HostSubject(host)); err != nil {
		return nil, err
	}
	return &umbrav1.RevokeHostResponse{}, nil
}

func (s *identityService) IssueClientCertificate(ctx context.Context, request *umbrav1.IssueClientCertificateRequest) (*umbrav1.IssueClientCertificateResponse, error) {
	role := strings.ToLower(strings.TrimPrefix(request.GetRole().String(), "ROLE_"))
	made, err := s.Office.Client(ctx, role, request.GetClient(), request.GetCertificateSigningRequest(), request.GetTtl().AsDuration())
	if err != nil {
		return nil, certificateError(err)
	}
	return &umbrav1.IssueClientCertificateResponse{Certificate: certificate(made)}, nil
}

func (s *identityService) RevokeClient(ctx context.Context, request *umbrav1.RevokeClientRequest) (*umbrav1.RevokeClientResponse, error) {
	if err := s.Office.Revoke(ctx, identity.ClientSubject(request.GetClient())); err != nil {
		return nil, err
	}
	return &umbrav1.RevokeClientResponse{}, nil
}

func certificate(made enrolment.Certificate) *umbrav1.Certificate {
	return &umbrav1.Certificate{Chain: made.Chain, Authorities: made.Authorities, ExpireTime: timestamp(made.NotAfter)}
}

func certificateError(err error) error {
	var bad *enrolment.BadRequestError
	if errors.As(err, &bad) {
		return invalid("certificate_signing_request", "%v", bad)
	}
	return err
}
