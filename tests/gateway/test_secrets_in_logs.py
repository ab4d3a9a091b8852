"""Everything that takes or gives a secret is done once; then no log holds any of them."""

from tests.gateway.conftest import Services
from tests.gateway.running import Gateway
from tests.users.driver import ADMIN, ADMIN_KEY, ADMIN_PASSWORD


def test_no_secret_is_in_any_log(gate: Gateway, services: Services) -> None:
    passwords = [f"pass-word-{number}-of-{gate.port}" for number in range(4)]
    secrets = [ADMIN_KEY, ADMIN_PASSWORD, gate.token, *passwords]

    issued = gate.sign_in()
    refreshed = gate.sign_in(refresh_token=issued["refresh_token"])
    for tokens in (issued, refreshed):
        secrets += [tokens["access_token"], tokens["refresh_token"]]
    nobody = {"Authorization": None}
    gate.call("POST", "/auth/token", json={"refresh_token": issued["refresh_token"]}, headers=nobody)
    gate.call("POST", "/auth/revoke", json={"refresh_token": refreshed["refresh_token"]})
    gate.call("POST", "/auth/token", json={"username": "logs", "password": passwords[0]}, headers=nobody)
    gate.call(
        "POST",
        "/auth/token",
        json={"username": passwords[0], "password": {"x": passwords[0]}},
        headers=nobody,
    )

    user = {"username": "logs", "roles": ["IT Operator"], "creator": ADMIN}
    assert gate.call("POST", "/users", json=user | {"password": passwords[1]}).status_code == 201
    assert gate.call("POST", "/users", json=user | {"password": passwords[2] * 100}).status_code == 400
    own = {"Authorization": "Bearer " + gate.sign_in(username="logs", password=passwords[1])["access_token"]}
    for body in ({"scopes": ["delegate"]}, {"username": "logs"}):
        made = gate.call("POST", "/api-keys", json={"name": "logs"} | body).json()["data"]["api_key"]["key"]
        secrets.append(made)
        answer = gate.call("GET", "/users", headers=nobody | {"x-api-key": made, "username": "logs"})
        assert answer.status_code == 200
    change = {"old": passwords[1], "new": passwords[3]}
    assert gate.call("PUT", "/users/me/password", json=change, headers=own).status_code == 200
    gate.call("GET", f"/users?password={passwords[0]}&x-api-key={ADMIN_KEY}")
    gate.call("GET", "/users", headers={"x-api-key": passwords[0], "Authorization": passwords[2]})
    told = gate.call("GET", "/checkpoints").json()["headers"]
    secrets.append(told["x-internal-token"])

    logs = gate.log.read_text() + services.users_log.read_text()
    assert '"path":"/auth/token"' in logs  # the logs are the right ones
    assert '"route": "/users/me/password"' in logs
    assert [secret for secret in secrets if secret in logs] == []
