// Uses the client that openapi-generator generated for Java (library native). Throws if a response differs from what is
// expected here.

import com.example.latchkey.ApiClient;
import com.example.latchkey.ApiException;
import com.example.latchkey.api.MyAccountApi;
import com.example.latchkey.api.MyApiKeysApi;
import com.example.latchkey.api.SignInApi;
import com.example.latchkey.model.FieldError;
import com.example.latchkey.model.KeyCreateRequest;
import com.example.latchkey.model.OAuthError;
import com.example.latchkey.model.Problem;
import com.example.latchkey.model.RegisterRequest;
import com.example.latchkey.model.Scope;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

public class Client {
    private static final String PASSWORD = "a garden of forking paths";
    private static String url;

    private interface Call {
        Object run() throws ApiException;
    }

    private static void check(boolean holds, Object what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    /** A client without a credential. */
    private static ApiClient client() {
        ApiClient client = new ApiClient();
        client.updateBaseUri(url);
        client.setConnectTimeout(Duration.ofSeconds(10));
        client.setReadTimeout(Duration.ofSeconds(10));
        return client;
    }

    /** The native library sends a credential only by an interceptor. */
    private static ApiClient client(String header, String value) {
        return client().setRequestInterceptor(request -> request.header(header, value));
    }

    private static ApiException failure(Call call) {
        try {
            throw new AssertionError(call.run());
        } catch (ApiException failure) {
            return failure;
        }
    }

    private static Problem problem(Call call) throws Exception {
        ApiException failure = failure(call);
        Problem problem = client().getObjectMapper().readValue(failure.getResponseBody(), Problem.class);
        check(problem.getStatus() == failure.getCode() && !problem.getRequestId().isEmpty(), problem);
        return problem;
    }

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        String profile = arguments[1];
        SignInApi anonymous = new SignInApi(client());

        var request = new RegisterRequest();
        request.name("James").surname("Gosling").email("james@example.org").password(PASSWORD);
        var user = anonymous.register(request);
        check(user.getRole().equals("member") && !user.getDisabled(), user);
        check(user.getCreatedAt().isAfter(OffsetDateTime.now().minusMinutes(1)), user);

        var incorrect = new RegisterRequest().name("J").surname("").email("nowhere").password(PASSWORD);
        Problem invalid = problem(() -> anonymous.register(incorrect));
        check(invalid.getStatus() == 422 && invalid.getCode().equals("invalid"), invalid);
        var fields = invalid.getErrors().stream().collect(Collectors.toMap(FieldError::getField, FieldError::getCode));
        check(fields.equals(Map.of("email", "email", "name", "length")), invalid);

        String email = user.getEmail();
        ApiException wrong = failure(() -> anonymous.signIn(email, "x", "password", null, null, null));
        check(wrong.getCode() == Map.of("fastapi", 401, "rfc", 400).get(profile), wrong);
        OAuthError error = client().getObjectMapper().readValue(wrong.getResponseBody(), OAuthError.class);
        check(error.getError().equals("invalid_grant"), error);

        var token = anonymous.signIn(email, PASSWORD, "password", null, null, null);
        check(token.getExpiresIn() == 86_400, token);
        ApiClient james = client("Authorization", "Bearer " + token.getAccessToken());
        check(new MyAccountApi(james).me().equals(user), user);

        var create = new KeyCreateRequest().name("reader").scopes(Set.of(Scope.PAGES_READ));
        var key = new MyApiKeysApi(james).createKey(create, null);
        ApiClient reader = client("Token", key.getKey());
        check(new SignInApi(reader).protectedRoute().getHello().equals("James"), key);
        Problem denied = problem(() -> new MyApiKeysApi(reader).listKeys());
        check(denied.getStatus() == 403 && denied.getCode().equals("insufficient_scope"), denied);

        Problem missing = problem(() -> new MyAccountApi(client()).me());
        check(missing.getStatus().equals(Map.of("fastapi", 403, "rfc", 401).get(profile)), missing);
        check(missing.getCode().equals("not_authenticated"), missing);
        Problem unknown = problem(() -> new MyAccountApi(client("Authorization", "Bearer unknown")).me());
        check(unknown.getStatus() == 401 && unknown.getCode().equals("invalid_token"), unknown);
        System.out.println("done");
    }
}
