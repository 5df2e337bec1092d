// The fields about a person, at registration and in the profile.
import { TextField, type FormState } from "../../components/form";
import { useSettings } from "../../settings";

interface Values extends Record<string, string> {
  name: string;
  surname: string;
  website: string;
}

export function PersonFields<V extends Values>({ form }: { form: FormState<V> }) {
  const settings = useSettings();
  const least = settings.value?.name_min;
  return (
    <>
      <TextField
        form={form}
        name="name"
        label="First name"
        help={least !== undefined && least > 1 ? `At least ${least} characters.` : undefined}
        autoComplete="given-name"
      />
      <TextField form={form} name="surname" label="Family name" autoComplete="family-name" isOptional />
      <TextField form={form} name="website" label="Website" autoComplete="url" isOptional />
    </>
  );
}
