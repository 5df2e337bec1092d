// Uses the client that openapi-generator generated for Go. Panics if a response differs from what is expected here.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"time"

	"golang.org/x/oauth2"
	"latchkey"
)

const password = "a garden of forking paths"

func check(holds bool, what ...any) {
	if !holds {
		panic(fmt.Sprintf("%+v", what))
	}
}

func model(err error) any {
	var failure *latchkey.GenericOpenAPIError
	check(errors.As(err, &failure), err)
	return failure.Model()
}

func problem(response *http.Response, err error) latchkey.Problem {
	problem, ok := model(err).(latchkey.Problem)
	check(ok && int(problem.Status) == response.StatusCode && problem.RequestId != "", err, problem)
	return problem
}

func main() {
	url, profile := os.Args[1], os.Args[2]
	configuration := latchkey.NewConfiguration()
	configuration.Servers = latchkey.ServerConfigurations{{URL: url}}
	configuration.HTTPClient = &http.Client{Timeout: 10 * time.Second}
	client := latchkey.NewAPIClient(configuration)
	anonymous := context.Background()

	request := latchkey.NewRegisterRequest("Robert", "Griesemer", "robert@example.org", password)
	user, _, err := client.SignInAPI.Register(anonymous).RegisterRequest(*request).Execute()
	check(err == nil, err)
	check(user.Role == "member" && !user.Disabled && time.Since(user.CreatedAt) < time.Minute, user)

	request = latchkey.NewRegisterRequest("R", "", "nowhere", password)
	_, response, err := client.SignInAPI.Register(anonymous).RegisterRequest(*request).Execute()
	invalid := problem(response, err)
	check(invalid.Status == 422 && invalid.Code == "invalid", invalid)
	fields := map[string]string{}
	for _, one := range invalid.Errors {
		fields[one.Field] = one.Code
	}
	check(len(fields) == 2 && fields["email"] == "email" && fields["name"] == "length", invalid)

	form := client.SignInAPI.SignIn(anonymous).GrantType("password").Username(user.Email)
	_, response, err = form.Password("x").Execute()
	wrong, ok := model(err).(latchkey.OAuthError)
	check(ok && wrong.Error == "invalid_grant", err, wrong)
	check(response.StatusCode == map[string]int{"fastapi": 401, "rfc": 400}[profile], response.Status)

	token, _, err := form.Password(password).Execute()
	check(err == nil, err)
	check(token.ExpiresIn == 86400, token)
	bearer := func(token string) context.Context {
		source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})
		return context.WithValue(anonymous, latchkey.ContextOAuth2, source)
	}
	robert := bearer(token.AccessToken)
	me, _, err := client.MyAccountAPI.Me(robert).Execute()
	check(err == nil && reflect.DeepEqual(me, user), err, me)

	scopes := []latchkey.Scope{latchkey.PAGES_READ}
	create := latchkey.NewKeyCreateRequest("reader", scopes)
	key, _, err := client.MyAPIKeysAPI.CreateKey(robert).KeyCreateRequest(*create).Execute()
	check(err == nil, err)
	keys := map[string]latchkey.APIKey{"token": {Key: key.Key}}
	reader := context.WithValue(anonymous, latchkey.ContextAPIKeys, keys)
	hello, _, err := client.SignInAPI.ProtectedRoute(reader).Execute()
	check(err == nil && hello.Hello == "Robert", err, hello)
	_, response, err = client.MyAPIKeysAPI.ListKeys(reader).Execute()
	denied := problem(response, err)
	check(denied.Status == 403 && denied.Code == "insufficient_scope", denied)

	_, response, err = client.MyAccountAPI.Me(anonymous).Execute()
	missing := problem(response, err)
	check(int(missing.Status) == map[string]int{"fastapi": 403, "rfc": 401}[profile], missing)
	check(missing.Code == "not_authenticated", missing)
	_, response, err = client.MyAccountAPI.Me(bearer("unknown")).Execute()
	unknown := problem(response, err)
	check(unknown.Status == 401 && unknown.Code == "invalid_token", unknown)
	fmt.Println("done")
}
