import { useState } from "preact/hooks";
import { call } from "../api";
import { Form, TextField, useForm } from "../components/form";
import { DoneNotice, Loading, Notice } from "../components/notice";
import { Page } from "../components/page";
import { navigate } from "../lib/router";
import { clear, signIn } from "../session";
import { useSettings } from "../settings";
import { NewPasswordField, lengthError } from "./account/new-password";
import { PersonFields } from "./account/person";

const INITIAL = { name: "", surname: "", email: "", website: "", password: "" };

export function RegisterPage() {
  const settings = useSettings();
  const [isSent, setSent] = useState(false);
  const form = useForm({
    initial: INITIAL,
    check: ({ name, email, password }) => {
      const length = lengthError(password, settings.value);
      return {
        ...(name.trim() === "" && { name: "Enter your first name." }),
        ...(email.trim() === "" && { email: "Enter your e-mail address." }),
        ...(length !== undefined && { password: length }),
      };
    },
    submit: async (values) => {
      await call("post", "/register", { body: values });
      if (settings.value?.registration === "verified") {
        setSent(true);
        return;
      }
      // The account exists, so a failure of the sign-in must not show this form again.
      await signIn(values.email, values.password).catch(() => {
        clear("Your account is created. Sign in.");
        navigate("#/sign-in", { replace: true });
      });
    },
    fieldOf: { email_taken: "email" },
  });
  return (
    <Page title="Register">
      {isSent ? (
        <DoneNotice>
          You get a mail. Open its link to enter your name and your password again: only your address is kept until then.
        </DoneNotice>
      ) : settings.value?.registration === "closed" || settings.value?.registration === "invited" ? (
        <Notice>Registration is closed. Ask an administrator for an account.</Notice>
      ) : settings.value === undefined && settings.isLoading ? (
        <Loading />
      ) : (
        <div class="card">
          <Form form={form} submitLabel="Register">
            <PersonFields form={form} />
            <TextField
              form={form}
              name="email"
              label="E-mail address"
              help="You sign in with it."
              type="email"
              autoComplete="username"
              input={{ autoCapitalize: "none", spellcheck: false }}
            />
            <NewPasswordField form={form} name="password" label="Password" />
          </Form>
        </div>
      )}
      <p>
        You have an account? <a href="#/sign-in">Sign in</a>
      </p>
    </Page>
  );
}
