// Shows the OpenAPI document with Swagger UI, from files of this service alone.
/* global SwaggerUIBundle */
SwaggerUIBundle({ url: `${document.documentElement.dataset.root}/openapi.json`, dom_id: "#swagger-ui", deepLinking: true });
