// Who you are: your data, your e-mail address, and the end of your account.
import { useState } from "preact/hooks";
import { call } from "../../api";
import { Button } from "../../components/button";
import { ConfirmDialog } from "../../components/dialog";
import { Form, PasswordField, SelectField, TextField, useForm } from "../../components/form";
import { ErrorBox, notify } from "../../components/notice";
import { Card, Facts, Page } from "../../components/page";
import { Badge, Scopes, Time, UserText } from "../../components/text";
import { useSession } from "../../lib/current";
import { ended, refresh } from "../../session";
import { useSettings } from "../../settings";
import { AccountName } from "./account-name";
import { PersonFields } from "./person";

export function ProfilePage() {
  const { user, scopes } = useSession();
  const settings = useSettings();
  return (
    <Page title="Profile" intro="Your data, as this server stores it.">
      <Card title="Account">
        <Facts
          items={[
            ["Name", <UserText value={`${user.name} ${user.surname}`.trim()} />],
            ["E-mail address", <UserText value={user.email} />],
            ["Verified", user.email_verified ? "yes" : "no"],
            ["New address, not confirmed yet", <PendingAddress />],
            ["Role", <Badge>{user.role}</Badge>],
            ["Scopes", <Scopes scopes={scopes} />],
            ["User id", String(user.id)],
            ["Registered", <Time value={user.created_at} isBoth />],
            ["Last changed", <Time value={user.updated_at} isBoth />],
          ]}
        />
      </Card>
      <VerificationCard />
      <PersonCard />
      <EmailCard />
      {settings.value?.mail && <MailCard />}
      <DeleteCard />
    </Page>
  );
}

function PendingAddress() {
  const { user } = useSession();
  if (!user.pending_email) return "none";
  return (
    <>
      <UserText value={user.pending_email} />
      <span class="second-line">To end this change, enter your present address under “Change your e-mail address” below.</span>
    </>
  );
}

/** Sends the link that verifies the address again. Without an SMTP server there is none. */
function VerificationCard() {
  const { user } = useSession();
  const settings = useSettings();
  const [error, setError] = useState<unknown>();
  const send = async () => {
    setError(undefined);
    try {
      await call("post", "/email-verification", { body: { email: user.email } });
      notify("A mail with a link is on its way, unless the address got one a minute ago, or several already.");
    } catch (failure) {
      setError(failure);
    }
  };
  if (user.email_verified || !settings.value?.mail) return null;
  return (
    <Card title="Verify your e-mail address">
      <p class="measure">
        Open the link in the mail that you got when you registered. If you do not find it, look among spam, or send it again.
      </p>
      <ErrorBox error={error} />
      <div class="form-actions">
        <Button onClick={send}>Send the link again</Button>
      </div>
    </Card>
  );
}

function PersonCard() {
  const { user } = useSession();
  const form = useForm({
    initial: { name: user.name, surname: user.surname, website: user.website },
    submit: async (values) => {
      await call("patch", "/me", { body: values });
      await refresh();
      notify("Your data is saved.");
    },
  });
  return (
    <Card title="Name and website">
      <Form form={form} submitLabel="Save">
        <PersonFields form={form} />
      </Form>
    </Card>
  );
}

function EmailCard() {
  const { user } = useSession();
  const initial = { email: "", current_password: "" };
  const form = useForm({
    initial,
    check: ({ email, current_password }) => ({
      ...(email.trim() === "" && { email: "Enter the new e-mail address." }),
      ...(current_password === "" && { current_password: "Enter your current password." }),
    }),
    submit: async (values) => {
      const changed = await call("patch", "/me", { body: values });
      await refresh();
      form.reset();
      if (changed.pending_email) notify("Open the link in the mail to the new address. Until then, your present address stays.");
      else if (changed.email === user.email) notify(`Your e-mail address stays ${user.email}.`);
      else notify("Your e-mail address is changed. Use it for the next sign-in.");
    },
    fieldOf: { wrong_password: "current_password", email_taken: "email" },
  });
  return (
    <Card title="Change your e-mail address">
      <Form form={form} submitLabel="Change e-mail address">
        <AccountName />
        <TextField
          form={form}
          name="email"
          label="New e-mail address"
          help="You sign in with it. Another account cannot have it."
          type="email"
          autoComplete="email"
          input={{ autoCapitalize: "none", spellcheck: false }}
        />
        <PasswordField
          form={form}
          name="current_password"
          label="Current password"
          help="It proves that it is you who changes the sign-in."
          autoComplete="current-password"
        />
      </Form>
    </Card>
  );
}

function MailCard() {
  const { user } = useSession();
  const turnsOff = (choice: string) => user.sign_in_notices && choice === "off";
  const form = useForm({
    initial: {
      language: user.language as string,
      sign_in_notices: user.sign_in_notices ? "on" : "off",
      current_password: "",
    },
    check: ({ sign_in_notices, current_password }) =>
      turnsOff(sign_in_notices) && current_password === ""
        ? { current_password: "Enter your current password." }
        : {},
    submit: async ({ language, sign_in_notices, current_password }) => {
      const body = {
        language: language as "en" | "de",
        sign_in_notices: sign_in_notices === "on",
        ...(turnsOff(sign_in_notices) && { current_password }),
      };
      await call("patch", "/me", { body });
      await refresh();
      form.set("current_password", "");
      notify("Your data is saved.");
    },
    fieldOf: { wrong_password: "current_password" },
  });
  return (
    <Card title="Mails to you">
      <Form form={form} submitLabel="Save these settings">
        <SelectField
          form={form}
          name="language"
          label="Language"
          options={[
            ["en", "English"],
            ["de", "German"],
          ]}
        />
        <SelectField
          form={form}
          name="sign_in_notices"
          label="Sign-ins after failed ones, and from new networks"
          help="Mails about changes of your account cannot be turned off."
          options={[
            ["on", "Send a mail"],
            ["off", "Send no mail"],
          ]}
        />
        {turnsOff(form.values.sign_in_notices) && (
          <>
            <AccountName />
            <PasswordField
              form={form}
              name="current_password"
              label="Current password"
              help="It proves that it is you who turns the mails off."
              autoComplete="current-password"
            />
          </>
        )}
      </Form>
    </Card>
  );
}

function DeleteCard() {
  const { user } = useSession();
  const [isOpen, setOpen] = useState(false);
  const remove = async () => {
    await call("delete", "/me");
    ended("Your account is deleted.");
  };
  return (
    <Card title="Delete your account">
      <p class="measure">
        Deletes your account with its sessions, token, API keys and pages, at once and for ever. The audit trail keeps what
        you did.
      </p>
      <div class="form-actions">
        <Button kind="danger" onClick={() => setOpen(true)}>
          Delete your account
        </Button>
      </div>
      {isOpen && (
        <ConfirmDialog
          title="Delete your account?"
          confirmLabel="Delete for ever"
          typed={user.email}
          onConfirm={remove}
          onClose={() => setOpen(false)}
        >
          <p>
            Your sessions, token, API keys and pages are deleted, too. Services that use your keys stop working. This cannot
            be undone.
          </p>
        </ConfirmDialog>
      )}
    </Card>
  );
}
