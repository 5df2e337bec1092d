// The roles that the settings define.
import { send } from "../../api";

/** The names of the roles. The API names them only in its own description. */
export async function loadRoles(signal: AbortSignal): Promise<string[]> {
  const response = await send("get", "/openapi.json", { signal });
  const document = (await response.json()) as {
    components: { schemas: { UserPatch: { properties: { role: { enum: string[] } } } } };
  };
  return document.components.schemas.UserPatch.properties.role.enum;
}
