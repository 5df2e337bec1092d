import { useState } from "preact/hooks";
import { call, type Registration } from "../api";
import { Form, TextField, useForm, type FormState } from "../components/form";
import { DoneNotice, Loading, Notice, notify } from "../components/notice";
import { Page } from "../components/page";
import { UserText } from "../components/text";
import { navigate } from "../lib/router";
import { clear, signIn } from "../session";
import { useSettings } from "../settings";
import { NewPasswordField, lengthError } from "./account/new-password";
import { PersonFields } from "./account/person";

interface FormProps {
  /** A mail was sent, and no account exists yet. */
  onSent: (email: string) => void;
}

export function RegisterPage() {
  const settings = useSettings();
  const [address, setAddress] = useState<string>();
  const mode = settings.value?.registration;
  return (
    <Page title="Register">
      {address !== undefined ? (
        <DoneNotice>
          Open the link in the mail to <UserText value={address} />. There you enter your name and a password.
        </DoneNotice>
      ) : mode === "closed" ? (
        <Notice>Registration is closed. Ask an administrator for an account.</Notice>
      ) : mode === "invited" ? (
        <Notice>Registration requires an invitation. Ask for an invitation, and open the link in its mail.</Notice>
      ) : mode === "verified" ? (
        <div class="card">
          <AddressForm onSent={setAddress} />
        </div>
      ) : mode === undefined && settings.error === undefined ? (
        <Loading />
      ) : (
        // A form that is filled in must stay while the settings load again.
        <div class="card">
          <AccountForm onSent={setAddress} />
        </div>
      )}
      <p>
        You have an account? <a href="#/sign-in">Sign in</a>
      </p>
    </Page>
  );
}

/** Asks for the address only: the holder of the link in the mail states the rest. */
function AddressForm({ onSent }: FormProps) {
  const form = useForm({
    initial: { email: "" },
    check: ({ email }) => addressError(email),
    submit: async ({ email }) => {
      // The type has the fields that the other modes require.
      await call("post", "/register", { body: { email } as Registration });
      onSent(email.trim());
    },
  });
  return (
    <Form form={form} submitLabel="Register">
      <AddressField form={form} />
    </Form>
  );
}

const EMPTY = { name: "", surname: "", email: "", website: "", password: "" };

function AccountForm({ onSent }: FormProps) {
  const settings = useSettings();
  const form = useForm({
    initial: EMPTY,
    check: ({ name, email, password }) => {
      const length = lengthError(password, settings.value);
      return {
        ...(name.trim() === "" && { name: "Enter your first name." }),
        ...addressError(email),
        ...(length !== undefined && { password: length }),
      };
    },
    submit: async (values) => {
      const user = await call("post", "/register", { body: values });
      // The settings of the server are not known, or have changed since the console read them.
      if (user === undefined) {
        onSent(values.email.trim());
        return;
      }
      const mail = settings.value?.mail ? ` Open the link in the mail to ${user.email}.` : "";
      // The account exists, so a failure of the sign-in must not show this form again.
      if (!settings.value?.verified_email_required && (await isAccepted(values))) {
        // Before the message, which the next page removes.
        navigate("#/profile", { replace: true });
        notify(`Your account is created.${mail}`);
      } else {
        clear(`Your account is created.${mail} ${mail ? "Then sign in." : "Sign in."}`);
        navigate("#/sign-in", { replace: true });
      }
    },
    fieldOf: { email_taken: "email" },
  });
  return (
    <Form form={form} submitLabel="Register">
      <PersonFields form={form} />
      <AddressField form={form} />
      <NewPasswordField form={form} name="password" label="Password" />
    </Form>
  );
}

function isAccepted({ email, password }: typeof EMPTY): Promise<boolean> {
  return signIn(email, password).then(
    () => true,
    () => false,
  );
}

function addressError(email: string): { email?: string } {
  return email.trim() === "" ? { email: "Enter your e-mail address." } : {};
}

function AddressField<V extends Record<string, string> & { email: string }>({ form }: { form: FormState<V> }) {
  return (
    <TextField
      form={form}
      name="email"
      label="E-mail address"
      help="You sign in with it."
      type="email"
      autoComplete="username"
      input={{ autoCapitalize: "none", spellcheck: false }}
    />
  );
}
