package services_test

import (
	"net/http"

	"github.com/marinaos/marina/internal/services"
	"github.com/marinaos/marina/internal/services/api"
)

func init() {
	services.HandlerOf = func(s *services.Services) http.Handler { return api.New(s, nil) }
}
