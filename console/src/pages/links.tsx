// What the links in mails open. A link acts on a click, never when the page loads: programs that open links must not use
// them.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call } from "../api";
import { Form, PasswordField, TextField, useForm } from "../components/form";
import { Button } from "../components/button";
import { DoneNotice, ErrorBox } from "../components/notice";
import { Page } from "../components/page";
import { useSettings } from "../settings";
import { NewPasswordField, lengthError } from "./account/new-password";
import { PersonFields } from "./account/person";

/** The pages by the first part of their path. */
const PAGES = {
  "password-reset": ResetPage,
  "email-verification": VerificationPage,
  registration: RegistrationPage,
  "email-change": EmailChangePage,
  "email-undo": EmailUndoPage,
  invitation: InvitationPage,
} as const;
type Purpose = keyof typeof PAGES;

interface LinkProps {
  secret: string;
}

/** The purpose and the secret in the path of a link, such as `password-reset/lkm_…`. */
export function linkIn(path: string): { purpose: Purpose; secret: string } | undefined {
  const [purpose = "", secret, ...others] = path.split("/");
  if (!Object.hasOwn(PAGES, purpose) || secret === undefined || others.length > 0) return undefined;
  return { purpose: purpose as Purpose, secret };
}

export function LinkPage({ purpose, secret }: { purpose: Purpose; secret: string }) {
  useEffect(() => {
    // The secret must not stay in the address bar, nor in the history of the browser. The same link can come again.
    history.replaceState(null, "", `#/${purpose}`);
  });
  const Content = PAGES[purpose];
  return <Content secret={secret} />;
}

/** The page of a form for a link, or what is there after it. */
function Steps({ title, intro, done, children }: { title: string; intro: string; done: string | undefined; children: ComponentChildren }) {
  return (
    <Page title={title} {...(done === undefined && { intro })}>
      {done === undefined ? (
        <div class="card">{children}</div>
      ) : (
        <>
          <DoneNotice>{done}</DoneNotice>
          <p>
            <a href="#/sign-in">Sign in</a>
          </p>
        </>
      )}
    </Page>
  );
}

/** A page with one button. */
function Click({ title, intro, label, done, act }: { title: string; intro: string; label: string; done: string; act: () => Promise<unknown> }) {
  const [isDone, setDone] = useState(false);
  const [error, setError] = useState<unknown>();
  const run = async () => {
    try {
      await act();
      setDone(true);
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <Steps title={title} intro={intro} done={isDone ? done : undefined}>
      <ErrorBox error={error} />
      <div class="form-actions">
        <Button kind="primary" onClick={run}>
          {label}
        </Button>
      </div>
    </Steps>
  );
}

function ResetPage({ secret }: LinkProps) {
  const settings = useSettings();
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: { new_password: "" },
    check: ({ new_password }) => {
      const length = lengthError(new_password, settings.value);
      return length === undefined ? {} : { new_password: length };
    },
    submit: async ({ new_password }) => {
      await call("post", "/password-reset/confirm", { body: { secret, new_password } });
      setDone(true);
    },
  });
  return (
    <Steps
      title="Set a new password"
      intro="This ends all sign-ins and API keys of your account."
      done={isDone ? "Your password is changed." : undefined}
    >
      <Form form={form} submitLabel="Set the password">
        <NewPasswordField form={form} name="new_password" label="New password" />
      </Form>
    </Steps>
  );
}

function VerificationPage({ secret }: LinkProps) {
  return (
    <Click
      title="Verify your e-mail address"
      intro="This states that you receive mails at the address of your account."
      label="Verify the address"
      done="Your e-mail address is verified."
      act={() => call("post", "/email-verification/confirm", { body: { secret } })}
    />
  );
}

function EmailChangePage({ secret }: LinkProps) {
  return (
    <Click
      title="Confirm your new e-mail address"
      intro="You will sign in with it. All present sign-ins end, and API keys stay valid."
      label="Use this address"
      done="Your e-mail address is changed. Sign in with the new one."
      act={() => call("post", "/email-change/confirm", { body: { secret } })}
    />
  );
}

function EmailUndoPage({ secret }: LinkProps) {
  return (
    <Click
      title="Restore your e-mail address"
      intro="This ends all sign-ins and API keys of the account. You get a mail with a link to set a new password."
      label="Restore the address"
      done="Your e-mail address is restored. Open the link in the next mail to set a new password."
      act={() => call("post", "/email-change/undo", { body: { secret } })}
    />
  );
}

function RegistrationPage({ secret }: LinkProps) {
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: { password: "" },
    check: ({ password }) => (password === "" ? { password: "Enter the password of your registration." } : {}),
    submit: async ({ password }) => {
      await call("post", "/registration/confirm", { body: { secret, password } });
      setDone(true);
    },
    fieldOf: { wrong_password: "password" },
  });
  return (
    <Steps
      title="Complete your registration"
      intro="Enter the password that you chose. If you did not register, close this page."
      done={isDone ? "Your account is created." : undefined}
    >
      <Form form={form} submitLabel="Create the account">
        <PasswordField form={form} name="password" label="Password" autoComplete="current-password" />
      </Form>
    </Steps>
  );
}

function InvitationPage({ secret }: LinkProps) {
  const settings = useSettings();
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: { name: "", surname: "", website: "", password: "" },
    check: ({ name, password }) => {
      const length = lengthError(password, settings.value);
      return {
        ...(name.trim() === "" && { name: "Enter your first name." }),
        ...(length !== undefined && { password: length }),
      };
    },
    submit: async (values) => {
      await call("post", "/invitations/accept", { body: { secret, ...values } });
      setDone(true);
    },
  });
  return (
    <Steps
      title="Create your account"
      intro="You sign in with the e-mail address to which the invitation was sent."
      done={isDone ? "Your account is created." : undefined}
    >
      <Form form={form} submitLabel="Create the account">
        <PersonFields form={form} />
        <NewPasswordField form={form} name="password" label="Password" />
      </Form>
    </Steps>
  );
}

/** Asks for a link that sets a new password. */
export function ForgottenPasswordPage() {
  const [isDone, setDone] = useState(false);
  const form = useForm({
    initial: { email: "" },
    check: ({ email }) => (email.trim() === "" ? { email: "Enter your e-mail address." } : {}),
    submit: async (values) => {
      await call("post", "/password-reset", { body: values });
      setDone(true);
    },
  });
  return (
    <Steps
      title="Forgotten password"
      intro="You get a mail with a link that sets a new password."
      done={isDone ? "If the address has an account, a mail is on its way." : undefined}
    >
      <Form form={form} submitLabel="Send the link">
        <TextField
          form={form}
          name="email"
          label="E-mail address"
          type="email"
          autoComplete="username"
          input={{ autoCapitalize: "none", spellcheck: false }}
        />
      </Form>
    </Steps>
  );
}
