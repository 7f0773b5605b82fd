"""The contract's paths, the router and the page of routes are one and the same list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.routes import ROUTES
from gateway.routes_page import document

PAGE = Path(__file__).parents[2] / "docs" / "routes.md"
# what clients are written against; a path may be added, none is renamed
CONTRACT = [
    "",
    "POST /api/users",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/logout",
    "POST /api/auth/password-reset",
    "GET /api/users/{}",
    "PATCH /api/users/{}",
    "POST /api/users/{}/password",
    "POST /api/users/{}/kyc",
    "POST /api/users/{}/kyc/decision",
    "POST /api/users/{}/roles",
    "POST /api/users/{}/email/confirm",
    "GET /api/users/{}/overview",
    "GET /api/sessions",
    "DELETE /api/sessions",
    "POST /api/accounts",
    "GET /api/accounts",
    "GET /api/accounts/{}",
    "POST /api/accounts/{}/freeze",
    "POST /api/accounts/{}/unfreeze",
    "POST /api/accounts/{}/close",
    "POST /api/accounts/{}/archive",
    "GET /api/accounts/{}/entries",
    "GET /api/accounts/{}/statements",
    "POST /api/transactions",
    "POST /api/transactions/bulk",
    "GET /api/transactions",
    "GET /api/transactions/{}",
    "GET /api/transactions/{}/trace",
    "GET /api/transactions/{}/events",
    "POST /api/transactions/{}/cancel",
    "POST /api/transactions/{}/reverse",
    "POST /api/holds",
    "GET /api/holds/{}",
    "POST /api/holds/{}/capture",
    "POST /api/holds/{}/void",
    "POST /api/payments",
    "GET /api/payments/{}",
    "POST /api/payments/{}/refunds",
    "POST /api/payment-methods",
    "GET /api/payment-methods",
    "DELETE /api/payment-methods/{}",
    "POST /api/payments/webhooks/{}",
    "POST /api/payments/statements",
    "POST /api/notifications",
    "GET /api/notifications",
    "GET /api/notifications/{}",
    "POST /api/notifications/{}/redrive",
    "GET /api/notification-preferences",
    "PUT /api/notification-preferences",
    "GET /api/notification-templates/{}",
    "PUT /api/notification-templates/{}",
    "GET /api/webhook-endpoints",
    "POST /api/risk/score",
    "GET /api/risk/reviews",
    "POST /api/risk/reviews/{}/decision",
    "GET /api/risk/blacklist",
    "POST /api/risk/blacklist",
    "DELETE /api/risk/blacklist",
    "GET /api/rates",
    "PUT /api/rates",
    "POST /api/quotes",
    "GET /api/analytics/reports",
    "GET /api/analytics/stream",
    "GET /api/audit",
    "GET /api/audit/verify",
    "GET /api/audit/export",
    "GET /api/settlements",
    "GET /api/settlements/{}",
    "POST /api/settlements/run",
    "POST /api/settlements/{}/statement",
    "POST /api/reports",
    "GET /api/reports/{}",
    "GET /api/reports/{}/download",
    "POST /api/report-schedules",
    "GET /api/tables/{}/{}",
    "POST /api/query",
    "GET /subjects",
    "GET /subjects/{}/versions/{}",
    "GET /schemas/ids/{}",
    "GET /api/openapi.json",
    "GET /api/asyncapi.json",
    "GET /docs",
    "GET /dashboard",
    "GET /health",
    "GET /readiness",
    "GET /metrics",
    "",
]


def shape(name: str) -> str:
    return re.sub(r"\{\w+\}", "{}", name)


@pytest.mark.parametrize("name", [line for line in CONTRACT if line])
def test_the_contract_is_kept(name: str) -> None:
    assert name in {shape(route.name) for route in ROUTES}


def test_the_page_is_true() -> None:
    assert PAGE.read_text() == document(), "run: python -m gateway.routes_page > docs/routes.md"


def test_no_route_is_there_twice() -> None:
    names = [shape(route.name) for route in ROUTES]
    assert len(names) == len(set(names))
