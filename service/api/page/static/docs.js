// Shows the OpenAPI document with Swagger UI. All files come from this service.
/* global SwaggerUIBundle */
SwaggerUIBundle({ url: `${document.documentElement.dataset.root}/openapi.json`, dom_id: "#swagger-ui", deepLinking: true });
