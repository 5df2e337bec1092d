import { Form, PasswordField, TextField, useForm } from "../components/form";
import { Notice } from "../components/notice";
import { Page } from "../components/page";
import { useSettings } from "../settings";
import { signIn } from "../session";

export function SignInPage({ notice }: { notice: string | undefined }) {
  const settings = useSettings();
  const form = useForm({
    initial: { email: "", password: "" },
    check: ({ email, password }) => ({
      ...(email.trim() === "" && { email: "Enter your e-mail address." }),
      ...(password === "" && { password: "Enter your password." }),
    }),
    submit: ({ email, password }) => signIn(email, password),
  });
  return (
    <Page title="Sign in">
      {notice && (
        <Notice>
          <p dir="auto">{notice}</p>
        </Notice>
      )}
      <div class="card">
        <Form form={form} submitLabel="Sign in">
          <TextField form={form} name="email" label="E-mail address" type="email" autoComplete="username" input={{ autoCapitalize: "none", spellcheck: false }} />
          <PasswordField form={form} name="password" label="Password" autoComplete="current-password" />
        </Form>
      </div>
      {settings.value?.mail && (
        <p>
          <a href="#/forgotten-password">Forgotten password?</a>
        </p>
      )}
      {(settings.value?.registration === "open" || settings.value?.registration === "verified") && (
        <p>
          No account yet? <a href="#/register">Register</a>
        </p>
      )}
    </Page>
  );
}
