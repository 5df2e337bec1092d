// The compiler must reject each line marked as a mistake, and accept all others.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: "https://auth.example.com" });

await client.GET("/pages/"); // mistake: no such path
await client.DELETE("/register"); // mistake: no such method
await client.POST("/register", { body: { name: "Barbara", email: "b@example.org", password: "p" } }); // mistake: surname
await client.GET("/page/{id}", { params: { path: { id: "first" } } }); // mistake: an id is a number
await client.POST("/me/keys", { body: { name: "reader", scopes: ["pages:rite"] } }); // mistake: no such scope
await client.GET("/audit", { params: { query: { order: "random" } } }); // mistake: no such order
const { data, error } = await client.GET("/protected-route");
console.log(data?.goodbye); // mistake: no such member
console.log(error?.errors?.map(({ reason }) => reason)); // mistake: no such member
console.log(data?.hello, error?.code);
